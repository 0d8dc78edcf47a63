//! `bootlace check`: could the server start?

use crate::boot::{grub_images, other_dhcp};
use crate::config::Config;
use crate::net::dhcp_watch::DhcpWatch;
use crate::net::port_holder::{Protocol, holder, in_use};
use crate::net::tftp_server;
use crate::network::network;
use crate::paths::Paths;
use crate::privileges::{self, Trouble};
use crate::site::{self, Site};
use crate::web_tls::{WebTls, fingerprint};
use model::Network;
use nix::sys::resource::{Resource, getrlimit};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use wire::error_chain;

/// One thing that was checked, in words.
pub(crate) enum Verdict {
    Right(String),
    /// The servers start, but something should be done about it.
    Better(String),
    /// It keeps a server from starting.
    Wrong(String),
}

impl From<Result<String, String>> for Verdict {
    fn from(checked: Result<String, String>) -> Self {
        checked.map_or_else(Self::Wrong, Self::Right)
    }
}

/// All that the servers need, in the order in which they need it.
pub(crate) fn run(paths: &Paths) -> Vec<Verdict> {
    let config = match Config::load(&paths.config()) {
        Ok(config) => config,
        Err(error) => return vec![Verdict::Wrong(error_chain(&error))],
    };
    let mut findings: Vec<Verdict> = checked(paths, &config).into_iter().map(Into::into).collect();
    findings.push(descriptors(paths));
    findings.extend(pool(paths, &config));
    findings.extend(damaged_images(paths));
    // Last, since this process is not root any more then.
    findings.push(match privileges::check(paths, &config) {
        Ok(text) => Verdict::Right(text),
        Err(Trouble::Unsafe(text)) => Verdict::Better(text),
        Err(Trouble::Wrong(text)) => Verdict::Wrong(text),
    });
    findings
}

fn checked(paths: &Paths, config: &Config) -> Vec<Result<String, String>> {
    let mut findings = Vec::new();
    findings.push(Ok(format!("configuration {}", paths.config().display())));
    match network(config) {
        Ok(network) => {
            findings.push(Ok(format!(
                "interface {} has the address {}/{}",
                config.network.interface, network.server, network.prefix
            )));
            findings.extend(clashes(config, &network));
            findings.extend(ports(config, &network));
            findings.extend(aoe(config));
            findings.extend(other_servers(config, &network));
        }
        Err(error) => findings.push(Err(error_chain(&error))),
    }
    if let Some(tls) = &config.storage.nbd_tls {
        let addresses = network(config).map(|network| {
            network.nbd.iter().map(|address| IpAddr::V4(*address.ip())).collect::<Vec<_>>()
        });
        let checked = tls.files().check().and_then(|()| match (&tls.machine_ca, addresses) {
            (Some(ca), Ok(addresses)) => tls.files().check_names(ca, &addresses),
            _ => Ok(()),
        });
        findings.push(match checked {
            Ok(()) => Ok(format!("NBD over TLS: certificate {}", tls.certificate.display())),
            Err(error) => Err(error_chain(&error)),
        });
    }
    findings.push(web_tls(paths, config).map_err(|error| format!("{error:#}")));
    findings.push(match grub_images::check() {
        Ok(version) => Ok(format!("loaders can be made by {version}")),
        Err(error) => Err(error_chain(&error)),
    });
    let has_ca = config.storage.nbd_tls.as_ref().is_some_and(|tls| tls.machine_ca.is_some());
    let init = if has_ca { service::INIT_TLS } else { service::INIT };
    findings.push(match service::find_init(init) {
        Some(path) => match std::fs::read(&path).map(initrd_builder::Init::parse) {
            Ok(Ok(_)) => Ok(format!("init for initrds: {}", path.display())),
            Ok(Err(error)) => Err(format!("{}: {}", path.display(), error_chain(&error))),
            Err(error) => Err(format!("can't read {}: {error}", path.display())),
        },
        None => Err(format!(
            "{init} is neither beside this program nor in /usr/lib/bootlace: no initrd can be built; \
             cargo xtask build makes it"
        )),
    });
    findings.push(images(paths));
    findings.push(privileges::check_admins(config));
    findings
}

/// How browsers are talked to, and by what they know this server.
fn web_tls(paths: &Paths, config: &Config) -> anyhow::Result<String> {
    let listen = config.web.listen;
    Ok(match WebTls::of(&config.web, paths, listen)? {
        WebTls::Off => format!("web page: http://{listen}, for this host only"),
        WebTls::Files(files) => {
            files.check()?;
            format!("web page: https://{listen}, certificate {}", files.certificate.display())
        }
        WebTls::Own(folder) => {
            let authority = folder.join("authority.pem");
            match authority.exists() {
                true => format!(
                    "web page: https://{listen}, authority {}, SHA-256 {}",
                    authority.display(),
                    fingerprint(&authority)?
                ),
                false => format!(
                    "web page: https://{listen}, by an authority that is made at the first start"
                ),
            }
        }
    })
}

fn ports(config: &Config, network: &Network) -> Vec<Result<String, String>> {
    let server = |port| SocketAddr::from((network.server, port));
    let mut needed = vec![
        (Protocol::Udp, SocketAddr::from(([0, 0, 0, 0], dhcp::SERVER_PORT)), "DHCP"),
        (Protocol::Udp, server(tftp_server::PORT), "TFTP"),
        (Protocol::Tcp, server(initcfg::HTTP_PORT), "HTTP boot"),
        (Protocol::Udp, server(initcfg::REPORT_PORT), "reports"),
        (Protocol::Tcp, config.web.listen, "web page"),
    ];
    needed.extend(network.nbd.iter().map(|&nbd| (Protocol::Tcp, SocketAddr::V4(nbd), "NBD")));
    let check = |(protocol, address, what): (Protocol, SocketAddr, &str)| {
        let bound = match protocol {
            Protocol::Udp => UdpSocket::bind(address).map(drop),
            Protocol::Tcp => TcpListener::bind(address).map(drop),
        };
        match bound {
            Ok(()) => Ok(format!("{what}: {protocol} port {} is free", address.port())),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                let holder = holder(protocol, address.port());
                if holder.as_ref().is_some_and(|holder| holder.name == "bootlace") {
                    return Ok(format!(
                        "{what}: bootlace is already running and has {protocol} port {}",
                        address.port()
                    ));
                }
                let by = holder.map_or("another program".into(), |holder| holder.to_string());
                Err(format!(
                    "{what}: {protocol} port {} is in use by {by}; stop it",
                    address.port()
                ))
            }
            Err(error) => {
                Err(format!("{what}: {}", error_chain(&in_use(protocol, address, error))))
            }
        }
    };
    needed.into_iter().map(check).collect()
}

/// Whether two of our own servers want the same port.
fn clashes(config: &Config, network: &Network) -> Option<Result<String, String>> {
    let boot = SocketAddr::from((network.server, initcfg::HTTP_PORT));
    let mut tcp = vec![(boot, "HTTP boot"), (config.web.listen, "the web page")];
    tcp.extend(network.nbd.iter().map(|&nbd| (SocketAddr::V4(nbd), "NBD")));
    let is_same = |one: SocketAddr, other: SocketAddr| {
        one.port() == other.port()
            && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
    };
    let pairs =
        tcp.iter().enumerate().flat_map(|(n, one)| tcp[n + 1..].iter().map(move |it| (one, it)));
    let clash = pairs.into_iter().find(|(one, other)| is_same(one.0, other.0))?;
    let ((one, first), (_, second)) = clash;
    Some(Err(format!(
        "{first} and {second} both want TCP {one}: give one of them another port or address"
    )))
}

/// Whether the interfaces for AoE are there.
fn aoe(config: &Config) -> Option<Result<String, String>> {
    let wanted = config.storage.aoe_interfaces.as_ref().filter(|it| !it.is_empty())?;
    let present = match nix::net::if_::if_nameindex() {
        Ok(present) => present,
        Err(error) => return Some(Err(format!("AoE: can't list the network interfaces: {error}"))),
    };
    let present: Vec<_> =
        present.iter().map(|it| it.name().to_string_lossy().into_owned()).collect();
    Some(match wanted.iter().find(|wanted| !present.contains(wanted)) {
        None => Ok(format!("AoE: served on {}", wanted.join(", "))),
        Some(missing) => Err(format!(
            "AoE: there is no network interface {missing:?} (aoe_interfaces); there are: {}",
            present.join(", ")
        )),
    })
}

/// Whether all machines can have an address at once.
fn pool(paths: &Paths, config: &Config) -> Option<Verdict> {
    let n_machines = n_machines(paths).ok()?;
    let pool = config.network.pool;
    let n_addresses = u64::from(pool.last.to_bits() - pool.first.to_bits()) + 1;
    // Those that are reserved elsewhere need none of the pool; how many of the machines have one is not looked at.
    let n_elsewhere =
        config.network.reserved.values().filter(|it| !(pool.first..=pool.last).contains(*it));
    (n_machines > n_addresses + n_elsewhere.count() as u64).then(|| {
        Verdict::Better(format!(
            "the pool {}-{} has {n_addresses} addresses for {n_machines} machines: not all can run at once. Make it larger",
            pool.first, pool.last
        ))
    })
}

/// Whether all machines can be attached at once.
fn descriptors(paths: &Paths) -> Verdict {
    privileges::raise_descriptor_limit();
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let n_machines = match n_machines(paths) {
        Ok(n_machines) => n_machines,
        Err(error) => return Verdict::Wrong(error),
    };
    let needed = storage::descriptors_for(n_machines);
    let machines = if n_machines == 1 { "machine needs" } else { "machines need" };
    let sum = format!("{n_machines} {machines} {needed} file descriptors of the storage server");
    match limit < needed {
        false => {
            Verdict::Right(format!("{sum}, which may have {limit} if it is started from here"))
        }
        true => Verdict::Better(format!(
            "{sum}, which may have only {limit} if it is started from here: not all can be attached at once. Allow it \
             {needed} or more: LimitNOFILE= in systemd, ulimit -n"
        )),
    }
}

/// Of the boot server, if one runs, or of the database.
fn n_machines(paths: &Paths) -> Result<u64, String> {
    /// The site, as far as it is needed.
    #[derive(serde::Deserialize)]
    struct Glance {
        n_machines: u64,
    }
    let database = paths.database();
    let asked = match site::connect(paths) {
        Ok(None) => return service::count_machines(&database).map_err(|error| error.chain()),
        // It runs on, and what is left of the site is in its memory.
        Ok(Some(_)) if !database.exists() => {
            return Err(format!(
                "the database {} is gone, and the boot server runs on with what was in it: save that by bootlace backup \
                 create FILE before you stop it; then bootlace backup restore FILE",
                database.display()
            ));
        }
        Ok(Some(stream)) => Site::of_server(paths, stream),
        Err(error) => Err(error),
    };
    let glance = asked.and_then(|site| site.get::<Glance>("/api/v1/status"));
    glance.map(|glance| glance.n_machines).map_err(|error| format!("{error:#}"))
}

/// Image versions with which machines can't start, if there are any.
fn damaged_images(paths: &Paths) -> Option<Verdict> {
    // A check changes nothing, so the store is not made here.
    let store = paths.images().exists().then(|| images::Store::open(&paths.images()))?;
    // Whether it can be read is checked with the images.
    let troubles = store.and_then(|store| store.troubles()).unwrap_or_default();
    (!troubles.is_empty()).then(|| {
        Verdict::Better(format!(
            "machines can't start with damaged images: {}. Mount the file system that holds them, put them back from a \
             backup, or import them again",
            troubles.join("; ")
        ))
    })
}

/// Whether another DHCP server answers, if that matters.
fn other_servers(config: &Config, network: &Network) -> Option<Result<String, String>> {
    if config.network.beside_others {
        return None;
    }
    let interface = &config.network.interface;
    let probe = async { DhcpWatch::open(interface, network.server)?.probe().await };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Some(match runtime.and_then(|runtime| runtime.block_on(probe)) {
        Ok(None) => Ok(format!("DHCP: no other server answers on {interface}")),
        Ok(Some(other)) => Err(other_dhcp::told(&other, interface)),
        Err(error) => Err(format!("DHCP: can't ask for other servers on {interface}: {error}")),
    })
}

fn images(paths: &Paths) -> Result<String, String> {
    let folder = paths.images();
    let none = "no images yet; import one: bootlace image import FILE --name NAME";
    // A check changes nothing, so the store is not made here.
    if !folder.exists() {
        return Ok(none.into());
    }
    let versions = images::Store::open(&folder).and_then(|store| store.list());
    match versions {
        Ok(versions) if versions.is_empty() => Ok(none.into()),
        Ok(versions) => {
            let count = versions.len();
            let versions = if count == 1 { "version" } else { "versions" };
            Ok(format!("{count} image {versions} in {}", folder.display()))
        }
        Err(error) => Err(error_chain(&error)),
    }
}
