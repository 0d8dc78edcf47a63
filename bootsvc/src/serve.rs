//! `bootlace serve`: the boot server's sockets and tasks.

use crate::alerts;
use crate::boot;
use crate::boot::files::{BootFiles, Loaders};
use crate::boot::foreign_dhcp::ProxySockets;
use crate::boot::grub_images::{ARM64_FILE, BIOS_FILE, GrubImages, UEFI_X64_FILE, arm64_folder};
use crate::boot::ipxe_loaders::IpxeLoaders;
use crate::boot::other_dhcp::Alone;
use crate::boot::reports::ReportListener;
use crate::boot::signed_loader::SignedLoader;
use crate::boot_socket;
use crate::certificates;
use crate::config::{Config, Mode};
use crate::directory;
use crate::net;
use crate::net::Handed;
use crate::net::dhcp_socket::DhcpSocket;
use crate::net::dhcp_watch::DhcpWatch;
use crate::net::door::Door;
use crate::net::link::{Link, LinkState, LinkWatch};
use crate::net::port_holder::{Protocol, in_use};
use crate::network::{Served, interfaces_of_pcs, leasing, networks, servers};
use crate::network_changes::{self, Change};
use crate::orders;
use crate::pages;
use crate::paths::Paths;
use crate::privileges;
use crate::state_lock::StateLock;
use crate::storage_network;
use crate::systemd;
use crate::trial;
use crate::web_tls::WebTls;
use anyhow::Context;
use model::{Architecture, FindingKind, Network, Subject};
use service::{Actor, LoaderRules, MachineView, Options, Service, StateWord};
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use storage::Credentials;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long tasks may take to end; a browser may still hold a page's connection.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// How long those that did not may take to let go of their sockets.
const ABORT_DEADLINE: Duration = Duration::from_secs(1);

/// Signs of life that wait for DHCP: of a whole room that came up together.
const ALIVE_MAX: usize = 256;

/// Ports that it needs.
pub(crate) fn ports(config: &Config) -> Vec<(Protocol, u16)> {
    let dhcp = dhcp_ports(config.network.mode).iter().map(|&port| (Protocol::Udp, port));
    let others = [
        (Protocol::Udp, net::tftp_server::PORT),
        (Protocol::Tcp, initcfg::HTTP_PORT),
        (Protocol::Udp, initcfg::REPORT_PORT),
        (Protocol::Tcp, config.web.listen.port()),
    ];
    dhcp.chain(others).collect()
}

/// Ports of DHCP in this mode.
pub(crate) const fn dhcp_ports(mode: Mode) -> &'static [u16] {
    match mode {
        Mode::Auto | Mode::Dhcp => &[dhcp::SERVER_PORT],
        Mode::Proxy => &[dhcp::SERVER_PORT, dhcp::PROXY_PORT],
        Mode::External => &[],
    }
}

/// Deaths of a storage server that was started with the boot server, as `wait` tells them.
type Deaths = Arc<Mutex<mpsc::Receiver<String>>>;

/// Runs the boot server until `stop`; `ready` is called when it serves. `handed` are sockets that whoever started us has
/// opened; `storage_deaths` tells how a storage server that is started with it has ended.
///
/// Where networks become others meanwhile, it begins anew by itself: connections to its listening sockets wait until then.
pub(crate) async fn run(
    paths: &Paths,
    config: &Config,
    (mut handed, storage_deaths): (Vec<Handed>, Option<mpsc::Receiver<String>>),
    ready: impl FnOnce(),
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let deaths: Option<Deaths> = storage_deaths.map(|deaths| Arc::new(Mutex::new(deaths)));
    let mut ready = Some(ready);
    let mut renumbered = None;
    loop {
        let tell = || {
            if let Some(ready) = ready.take() {
                ready();
            }
        };
        let before = (handed, deaths.clone(), renumbered.take());
        match run_once(paths, config, before, tell, stop.child_token()).await? {
            Ended::Stopped => return Ok(()),
            Ended::Anew { sockets, renumbered: told } => {
                handed = sockets;
                renumbered = told;
            }
        }
    }
}

/// How a boot server has ended.
enum Ended {
    /// It was stopped.
    Stopped,
    /// It is to begin anew, as networks are others.
    Anew {
        /// Its listening sockets.
        sockets: Vec<Handed>,
        /// What to tell if it has another address now.
        renumbered: Option<Renumbered>,
    },
}

/// That the server has another address, for a person.
struct Renumbered {
    from: Ipv4Addr,
    cause: String,
}

/// The same until networks are others.
async fn run_once(
    paths: &Paths,
    config: &Config,
    (handed, storage_deaths, renumbered): (Vec<Handed>, Option<Deaths>, Option<Renumbered>),
    ready: impl FnOnce(),
    stop: CancellationToken,
) -> anyhow::Result<Ended> {
    let is_up = storage_deaths.is_some();
    let networks = networks(config)?;
    let network = networks[0].network.clone();
    let trials = trial::is_free(config, &networks).then(|| {
        let of_trials = trial::network(&network);
        let leased = boot::trials::leased(config, &of_trials);
        (of_trials, leased)
    });
    let interfaces = network_changes::places(&networks);
    let storage_places = network_changes::storage_places(&networks);
    // Asked while the rest starts, which takes as long.
    let mode = config.network.mode;
    let asks = mode.leases() && !config.network.beside_others;
    let asked = interfaces_of_pcs(&networks).into_iter().filter(|_| asks);
    let others = asked.map(|(interface, server)| {
        let interface = interface.to_owned();
        let alone = Alone::on(&interface, server, paths);
        tokio::spawn(async move {
            let watch = DhcpWatch::open(&interface, server)
                .with_context(|| format!("can't hear other DHCP servers on {interface}"))?;
            // Who has decided on it is told of others, and serves all the same.
            let is_decided = mode == Mode::Dhcp || alone.is_noted();
            if !is_decided {
                boot::other_dhcp::refuse(&watch, &interface).await?;
                alone.note();
            }
            anyhow::Ok(((interface, server), watch, (alone, is_decided)))
        })
    });
    let others: Vec<_> = others.collect();
    let servers = servers(&networks);
    let loaders = loaders(config, &servers, paths)?;
    let options = Options {
        network: Some(network.clone()),
        more_networks: {
            let others = networks[1..].iter().map(|it| it.network.clone());
            others.chain(trials.as_ref().map(|(of_trials, _)| of_trials.clone())).collect()
        },
        // Nobody knows which routers are between, nor which number it would have in a storage network.
        network_elsewhere: (!mode.leases()).then(|| Network {
            is_relayed: true,
            storage: None,
            nbd: storage_network::nbd(config, network.server, None),
            ..network.clone()
        }),
        leasing: leasing(&networks),
        // They lack the driver for VLANs.
        fitted_initrds: config.boot.fitted_initrds
            && networks.iter().all(|it| it.network.vlan.is_none()),
        reboot_after_failure_seconds: config.boot.reboot_after_failure_seconds,
        rescue_busybox: config.boot.rescue_busybox.clone(),
        loader_rules: LoaderRules {
            family: config.boot.loader,
            family_of: config.boot.loader_of.clone(),
            site: config.boot.secure_boot,
            of: config.boot.secure_boot_of.clone(),
            signed: loaders.signed.as_ref().map(SignedLoader::starts_by_http),
            signed_arm64: loaders.signed_arm64.as_ref().map(SignedLoader::starts_by_http),
            has_arm64: loaders.has_arm64(),
        },
        alerts: config.alerts.options(),
        directory: directory::options(config.ldap.as_ref()),
        ..Options::under(&paths.root).with_nbd_ca(config.storage.machine_ca()?)
    };
    if options.init.is_none() {
        let name = service::init_name(Architecture::X86_64, options.nbd_ca.is_some());
        anyhow::bail!(
            "{name} is neither beside this program nor in /usr/lib/bootlace: no machine could \
             boot; cargo xtask build makes it"
        );
    }
    // Before the state is opened, and until it is closed: commands leave it alone meanwhile.
    let _lock = {
        let paths = paths.clone();
        let is_answered = move |paths: &Paths| boot_socket::is_answered(&paths.boot_socket());
        let take = move || StateLock::take_for_server(&paths, || is_answered(&paths));
        tokio::task::spawn_blocking(take).await.context("the state can't be locked")??
    };
    let service = Service::open(options)?;

    if nix::unistd::geteuid().is_root() && config.service.user.is_none() {
        let cause = "The boot server runs as root, as there is no user \"bootlace\"";
        service.found(FindingKind::RunsAsRoot, &Subject::Server, cause);
    }
    if let Some(Renumbered { from, cause }) = renumbered {
        service.found(FindingKind::ServerRenumbered, &Subject::Address(from), cause);
    }

    // Every socket is there before the first client is answered. What changes from here on is not missed.
    let mut places = Vec::new();
    for (index, (interface, server)) in interfaces.iter().enumerate() {
        let watch = LinkWatch::open(interface, *server)
            .context("can't hear what happens to network interfaces")?;
        let (states, link) =
            Link::new(interface, watch.look().context("can't look at the interfaces")?);
        let subject = if index == 0 { Subject::Server } else { Subject::Address(*server) };
        let dhcp = match mode {
            Mode::Proxy => DhcpSockets::Proxy(ProxySockets::bind(interface, *server)?),
            Mode::Auto | Mode::Dhcp => DhcpSockets::Leases(DhcpSocket::bind(interface, *server)?),
            Mode::External => DhcpSockets::None,
        };
        let interface = interface.clone();
        places.push(PlaceOfOurs { interface, server: *server, subject, link, watch, states, dhcp });
    }
    let (boot_files, handed): (Vec<_>, Vec<_>) =
        handed.into_iter().partition(|handed| handed.name == systemd::BOOT_FILES);
    let mut boot_files = boot_files;
    let mut file_servers = Vec::new();
    for &server in &servers {
        let tftp = net::tftp_server::Tftp::bind(server)?;
        let address = SocketAddr::from((server, initcfg::HTTP_PORT));
        let (of_this, others) = boot_files.into_iter().partition(|handed| handed.is_at(address));
        boot_files = others;
        let http =
            net::listener(of_this, address).await.context("can't serve boot files by HTTP")?;
        file_servers.push((server, tftp, http));
    }
    drop(boot_files);
    // Machines know the server by the address that it has where they are, and the kernel answers from there.
    let has_further = networks.iter().any(|served| !served.further.is_empty());
    let reports_at = match servers.len() == 1 && !has_further {
        true => network.server,
        false => Ipv4Addr::UNSPECIFIED,
    };
    let reports_address = SocketAddr::from((reports_at, initcfg::REPORT_PORT));
    let (alive, machines_alive) = mpsc::channel(ALIVE_MAX);
    let reports = ReportListener::bind(reports_at, service.clone(), alive.clone())
        .await
        .map_err(|error| in_use(Protocol::Udp, reports_address, error))
        .context("can't listen for reports")?;
    let pages = pages::listener(handed, config.web.listen).await?;
    let pages_address = pages.local_addr()?;
    if !pages_address.ip().to_canonical().is_loopback() && !service.has_admin() {
        anyhow::bail!(nobody_may(pages_address));
    }
    let web_tls = WebTls::of(&config.web, paths, pages_address)?;
    let files = web_tls.files(&config.web, pages_address)?;
    let pages_url = pages::address(&config.web, pages_address, files.is_some());
    let credentials = Credentials::from(files).context("the web page can't be shown by TLS")?;
    let boot_socket = paths.boot_socket();
    let admins = privileges::admins(config)?;
    let commands = boot_socket::bind(&boot_socket, admins)
        .with_context(|| format!("can't answer commands at {}", boot_socket.display()))?;

    let mut searches = Vec::new();
    for search in others {
        searches.push(search.await.context("the search for other DHCP servers died")??);
    }

    let kept: Vec<_> = file_servers.iter().map(|(_, _, http)| http.as_fd()).collect();
    systemd::keep(systemd::BOOT_FILES, &kept);
    systemd::keep(systemd::PAGES, &[pages.as_fd()]);
    let kept = kept.into_iter().map(|socket| Handed::again(systemd::BOOT_FILES, socket));
    // Whatever it was called when it was handed to us.
    let own_pages = std::iter::once(Handed::again("pages", pages.as_fd()));
    let sockets: Vec<Handed> =
        kept.chain(own_pages).collect::<io::Result<_>>().context("a socket can't be kept")?;
    let (has_signed, has_arm64) = (loaders.signed.is_some(), loaders.has_arm64());
    let on_link = networks.iter().filter(|it| !it.network.is_relayed);
    let neighbours = net::neighbours::Neighbours::new(
        on_link.map(|it| (it.interface.clone(), it.network.clone())),
    );
    let files = BootFiles::new(service.clone(), loaders, &network, neighbours, alive);
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let (service, stop) = (service.clone(), stop.clone());
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = service.run() => {}
            }
        }
    });
    for way in alerts::ways(&config.alerts) {
        tasks.spawn(alerts::run(way, service.clone(), stop.clone()));
    }
    if let Some(deaths) = storage_deaths {
        tasks.spawn(tell_deaths(deaths, service.clone(), stop.clone()));
    }
    tasks.spawn(orders::run(paths.clone(), service.clone(), stop.clone()));
    let http = boot::http::places();
    let is_alone = asks;
    for ((interface, server), watch, alone) in searches {
        let is_its =
            |place: &&PlaceOfOurs| (&place.interface, place.server) == (&interface, server);
        let Some(place) = places.iter().find(is_its) else { continue };
        let (link, service) = (place.link.clone(), service.clone());
        tasks.spawn(boot::other_dhcp::watch(watch, alone, server, link, service, stop.clone()));
    }
    let mut ears = Vec::new();
    let mut proxies = Vec::new();
    for place in places {
        let PlaceOfOurs { interface, server, subject, link, watch, states, dhcp } = place;
        let of_link = (interface, subject.clone());
        tasks.spawn(boot::link::watch(watch, of_link, states, service.clone(), stop.clone()));
        if config.network.answer_router_solicitations {
            let (link, service) = (link.clone(), service.clone());
            tasks.spawn(boot::router_solicitations::serve(link, service, stop.clone()));
        }
        match dhcp {
            DhcpSockets::Leases(socket) => {
                ears.push(boot::dhcp::Ear { socket, link, address: server, subject });
            }
            DhcpSockets::Proxy(sockets) => {
                proxies.push(((sockets, link), (server, subject, files.neighbours())));
            }
            DhcpSockets::None => {}
        }
    }
    let (of_service, of_stop) = (service.clone(), stop.clone());
    if ears.is_empty() {
        tasks.spawn(boot::foreign_dhcp::keep_addresses(machines_alive, of_service, of_stop));
    } else {
        let configs = boot::dhcp::configs(&networks, config.network.serve_everyone);
        let http = http.clone();
        tasks.spawn(boot::dhcp::serve(
            ears,
            configs,
            is_alone,
            machines_alive,
            http,
            of_service,
            of_stop,
        ));
    }
    for (sockets, place) in proxies {
        let (service, stop) = (service.clone(), stop.clone());
        tasks.spawn(boot::foreign_dhcp::serve_proxy(sockets, place, service, stop));
    }
    let serves_trial = Arc::new(AtomicBool::new(false));
    let of_trials = {
        let is_served = Arc::clone(&serves_trial);
        boot::trials::asked(service.clone(), trials.is_some(), is_served)
    };
    if let Some((_, leased)) = trials {
        let watch = LinkWatch::open(trial::INTERFACE, trial::HOST)
            .context("can't hear what happens to network interfaces")?;
        let (service, stop) = (service.clone(), stop.clone());
        tasks.spawn(boot::trials::serve(watch, leased, serves_trial, service, stop));
    }
    for (server, tftp, listener) in file_servers {
        let files = files.at(server);
        tasks.spawn(boot::tftp::serve(tftp, files.clone(), stop.clone()));
        let http_door = Door::new(listener, sent_away(&service, "Boot files"));
        tasks.spawn(boot::http::run(http_door, http.clone(), files, stop.clone()));
    }
    tasks.spawn(reports.run(stop.clone()));
    let used = certificates::used(paths, config, pages_address);
    tasks.spawn(certificates::watch(used, service.clone(), stop.clone()));
    let pages = Door::new(pages, sent_away(&service, "Pages"));
    let more = pages::told(pages_url.clone()).merge(of_trials);
    let local = boot_socket::router_with(service.clone(), paths.for_copies(), more);
    let link = if is_up { login_link(&service).await } else { None };
    tasks.spawn({
        let (names, stop) = (config.web.names.clone(), stop.clone());
        let service = service.clone();
        async move {
            pages::run(pages, credentials, (commands, local), (service, &names), stop).await;
        }
    });
    tasks.spawn({
        let (web, stop) = (config.web.clone(), stop.clone());
        async move { web_tls.keep(&web, pages_address, stop).await }
    });
    tracing::info!(
        interface = interfaces.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "),
        server = servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        loaders = format!(
            "{BIOS_FILE}, {UEFI_X64_FILE}{}{}",
            if has_arm64 { format!(", {ARM64_FILE}") } else { String::new() },
            if has_signed { ", shimx64.efi" } else { "" }
        ),
        "boot server ready; the web page is {pages_url}/"
    );
    if let Some(path) = link {
        // Not into the log, which others may read.
        let url = format!("{pages_url}{path}");
        let _ = writeln!(io::stdout(), "There is no account yet. To log in, open {url}");
    }
    systemd::ready("boot server ready");
    ready();

    let tell_lacking = |lacking: &[String]| match lacking {
        [] => service.resolved(FindingKind::NetworkNotServed, &Subject::Server),
        lacking => {
            let cause = sentence(&lacking.join("; "));
            service.found(FindingKind::NetworkNotServed, &Subject::Server, cause);
        }
    };
    let mut change = None;
    // A task that ends by itself has panicked: better to be restarted than to serve half.
    let ended = tokio::select! {
        // First: when all shall stop, the first task to do so is no failure.
        biased;
        () = stop.cancelled() => None,
        ended = tasks.join_next() => ended,
        other = network_changes::wait(config, (&interfaces, &storage_places), tell_lacking) => {
            change = Some(other);
            None
        }
    };
    let renumbered = change.as_ref().and_then(|change| renumbered_by(change, &service, &networks));
    if let Some(change) = &change {
        tracing::info!("{change}: the boot server begins anew");
    }
    stop.cancel();
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_DEADLINE, all).await.is_err() {
        tracing::debug!("some connections did not end in time");
        // Whoever takes the state next finds the ports free.
        let _ = tokio::time::timeout(ABORT_DEADLINE, tasks.shutdown()).await;
    }
    match ended {
        Some(Err(error)) => Err(error).context("a part of the boot server died"),
        Some(Ok(())) => anyhow::bail!("a part of the boot server ended"),
        None if change.is_some() => Ok(Ended::Anew { sockets, renumbered }),
        None => Ok(Ended::Stopped),
    }
}

/// What a person is to know of machines that run, where the server's address is another one.
fn renumbered_by(change: &Change, service: &Service, networks: &[Served]) -> Option<Renumbered> {
    let Change::Renumbered { interface, from, to } = change else { return None };
    let of_address = networks.iter().find(|served| served.network.server == *from)?;
    let knows = |view: &MachineView| {
        let is_there = view.address.is_some_and(|address| of_address.network.holds(address));
        is_there && !matches!(view.state.word, StateWord::Off | StateWord::Failed)
    };
    let names: Vec<String> = service
        .machines()
        .iter()
        .filter(|it| knows(it))
        .map(|it| it.machine.name.to_string())
        .collect();
    let cause = format!(
        "The server's address on {interface} was {from} and is {to} now. These machines run and look for it and their disks at \
         the former one: {}",
        names.join(", ")
    );
    (!names.is_empty()).then_some(Renumbered { from: *from, cause })
}

/// With a capital letter.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// An interface of ours, and our address there.
struct PlaceOfOurs {
    interface: String,
    server: Ipv4Addr,
    /// What a finding about it is about.
    subject: Subject,
    link: Link,
    watch: LinkWatch,
    states: watch::Sender<LinkState>,
    dhcp: DhcpSockets,
}

/// From whom PCs have their addresses.
enum DhcpSockets {
    /// From us.
    Leases(DhcpSocket),
    /// From another server, beside which we name the loader.
    Proxy(ProxySockets),
    /// From another server, which names the loader, too.
    None,
}

/// What firmware can load: ours, and the distribution's if there is one or one must be.
fn loaders(config: &Config, servers: &[Ipv4Addr], paths: &Paths) -> anyhow::Result<Loaders> {
    let arm64 = match arm64_folder(config.boot.arm64_grub.as_deref()) {
        Ok(folder) => Some(folder),
        Err(error) if config.boot.arm64_grub.is_some() => return Err(error.into()),
        Err(_) => None,
    };
    let make = |&server| {
        let made = GrubImages::make(server, &paths.cache(), arm64.as_deref())?;
        Ok((server, made))
    };
    let grub = servers.iter().map(make).collect::<anyhow::Result<_>>()?;
    let signed = config.boot.signed_loader.as_deref();
    let signed = match SignedLoader::find(Architecture::X86_64, signed) {
        Ok(signed) => Some(signed),
        Err(error) if config.boot.needs_signed_loader() => return Err(error.into()),
        Err(error) => {
            tracing::info!("{}", wire::error_chain(&error));
            None
        }
    };
    let signed_arm64 = config.boot.arm64_signed_loader.as_deref();
    let signed_arm64 = match SignedLoader::find(Architecture::Arm64, signed_arm64) {
        Err(error) if signed_arm64.is_some() => return Err(error.into()),
        found => found.ok(),
    };
    let ipxe = match config.boot.needs_ipxe() {
        true => Some(IpxeLoaders::find()?),
        false => None,
    };
    Ok(Loaders { grub, signed, signed_arm64, ipxe })
}

/// Why pages are not shown to everybody on a network.
pub(crate) fn nobody_may(listen: SocketAddr) -> String {
    format!(
        "the web page would be on {listen}, for others than this host, and there is no account of an administrator yet: add \
         one (bootlace user add NAME --role admin), or let it listen on 127.0.0.1"
    )
}

/// The path of a link that logs somebody in, as long as there is no account, if somebody reads it at a terminal.
async fn login_link(service: &Service) -> Option<String> {
    if service.has_account() || !io::stdout().is_terminal() {
        return None;
    }
    let root = service.admin(&Actor::command(nix::unistd::geteuid().as_raw())).ok()?;
    root.new_login_code().await.ok().map(|code| format!("/login?code={code}"))
}

/// Tells of the storage server's deaths until `stop`.
async fn tell_deaths(deaths: Deaths, service: Service, stop: CancellationToken) {
    let mut deaths = deaths.lock().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(status) = deaths.recv() => {
                let cause = format!("The storage server died ({status}) and was started again");
                service.found(FindingKind::StorageDied, &Subject::Server, cause);
            }
        }
    }
}

/// Tells that clients that wanted `what` were sent away.
fn sent_away(service: &Service, what: &'static str) -> impl FnMut() + Send + use<> {
    let service = service.clone();
    move || {
        let limit = net::door::client_number_max();
        let cause = format!(
            "{what} are refused to clients: the boot server may have only {limit} connections and files"
        );
        service.found(FindingKind::NoDescriptors, &Subject::Server, cause);
    }
}
