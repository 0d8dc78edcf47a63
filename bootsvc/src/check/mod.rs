//! `bootlace check`: could the server start?

mod link;
mod ours;
mod ports;
mod state;

pub(crate) use ours::{Ours, Server};

use crate::alerts::{Way, ways};
use crate::boot::grub_images;
use crate::boot::ipxe_loaders::IpxeLoaders;
use crate::boot::signed_loader::SignedLoader;
use crate::certificates::{self, How};
use crate::config::{Config, LdapConfig};
use crate::directory;
use crate::network::{
    Served, find, interfaces, interfaces_of_pcs, nbd_addresses, storage_interfaces,
};
use crate::paths::Paths;
use crate::privileges::{self, Trouble};
use crate::storage_network::StoragePlace;
use crate::web_tls::{PAGE_CERTIFICATE, WebTls, fingerprint};
use anyhow::Context as _;
use jiff::Timestamp;
use model::{Architecture, Network};
use std::error::Error;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use wire::error_chain;

/// One thing that was checked, in words.
pub(crate) enum Verdict {
    Right(String),
    /// The servers start, but something should be done about it.
    Better(String),
    /// It keeps a server from starting, or machines from what is theirs.
    Wrong(String),
    /// This user may not look at it.
    Unseen(String),
}

impl Verdict {
    /// Its word for programs, and what is told.
    pub(crate) fn in_words(&self) -> (&'static str, &str) {
        match self {
            Self::Right(text) => ("ok", text),
            Self::Better(text) => ("note", text),
            Self::Wrong(text) => ("wrong", text),
            Self::Unseen(text) => ("unseen", text),
        }
    }

    /// As a line for people.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Right(text) => format!("ok    {text}"),
            Self::Better(text) => format!("note  {text}"),
            Self::Wrong(text) => format!("WRONG {text}"),
            Self::Unseen(text) => format!("?     can't look, for lack of permission: {text}"),
        }
    }
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
        Err(error) => return vec![Viewer::of(paths).failed(&error)],
    };
    let ours = Ours::find(paths);
    let mut findings = checked(paths, &config, &ours);
    findings.extend(state::all(paths, &config));
    // Last, since this process is not root any more then.
    findings.push(match privileges::check(paths, &config) {
        Ok(text) => Verdict::Right(text),
        Err(Trouble::Unsafe(text)) => Verdict::Better(text),
        Err(Trouble::Wrong(text)) => Verdict::Wrong(text),
    });
    findings
}

fn checked(paths: &Paths, config: &Config, ours: &Ours) -> Vec<Verdict> {
    let viewer = Viewer::of(paths);
    let right = Verdict::Right;
    let mut findings = vec![right(format!("configuration {}", paths.config().display()))];
    let found = find(config);
    let networks = found.served;
    findings.extend(networks.iter().map(|Served { network, interface, .. }| {
        let Network { server, subnet, prefix, .. } = network;
        right(match network.is_relayed {
            true => format!(
                "PCs of the network {subnet}/{prefix}, behind a relay, reach the server at {server} (interface {interface})"
            ),
            false => format!("interface {interface} has the address {server}/{prefix}"),
        })
    }));
    findings.extend(networks.iter().filter_map(beyond_reach));
    findings.extend(networks.iter().filter_map(storage));
    for (interface, server) in storage_interfaces(&networks) {
        findings.extend(link::interface(interface, server));
    }
    let mut serving = Vec::new();
    for (interface, server) in interfaces(&networks) {
        let trouble = link::interface(interface, server);
        let serves = !matches!(trouble, Some(Verdict::Wrong(_)));
        serving.extend(serves.then_some((interface, server)));
        findings.extend(trouble);
    }
    let lacking = found.absent.iter().map(|(_, error)| error);
    let lacking = lacking.chain(&found.without_storage).chain(&found.wrong);
    findings.extend(lacking.map(|error| Verdict::Wrong(error_chain(error))));
    if found.wrong.is_empty() && !networks.is_empty() {
        findings.extend(ports::clashes(config, &networks));
        findings.extend(ports::ports(config, &networks, ours, viewer));
        findings.extend(link::aoe(config));
        let of_pcs = interfaces_of_pcs(&networks);
        serving.retain(|place| of_pcs.contains(place));
        let others = at_once(serving, |place| link::other_servers(config, place));
        findings.extend(others.into_iter().flatten());
    }
    findings.extend(ours.storage_verdict());
    if let Some(tls) = &config.storage.nbd_tls {
        let addresses = nbd_addresses(&networks).into_iter();
        let addresses: Vec<_> = addresses.map(|address| IpAddr::V4(*address.ip())).collect();
        let checked = tls.files().check().and_then(|()| match &tls.machine_ca {
            Some(ca) => tls.files().check_names(ca, &addresses),
            None => Ok(()),
        });
        findings.push(match checked {
            Ok(()) => right(format!("NBD over TLS: certificate {}", tls.certificate.display())),
            Err(error) => viewer.failed(&error),
        });
    }
    findings.push(match web_tls(paths, config) {
        Ok(text) => right(text),
        Err(error) => viewer.failed(error.as_ref()),
    });
    findings.extend(certificates(paths, config));
    findings.extend(alerts(config));
    findings.extend(config.ldap.as_ref().map(|ldap| self::ldap(ldap, viewer)));
    findings.push(match grub_images::check() {
        Ok(version) => right(format!("loaders can be made by {version}")),
        Err(error) => viewer.failed(&error),
    });
    findings.push(
        match SignedLoader::find(Architecture::X86_64, config.boot.signed_loader.as_deref()) {
            Ok(signed) => right(format!("loader for PCs with Secure Boot: {}", signed.origin())),
            Err(error) if config.boot.needs_signed_loader() => viewer.failed(&error),
            Err(error) => Verdict::Better(error_chain(&error)),
        },
    );
    let signed_arm64 = config.boot.arm64_signed_loader.as_deref();
    match SignedLoader::find(Architecture::Arm64, signed_arm64) {
        Ok(signed) => findings
            .push(right(format!("loader for arm64 PCs with Secure Boot: {}", signed.origin()))),
        Err(error) if signed_arm64.is_some() => findings.push(viewer.failed(&error)),
        // Who has no such PC needs none.
        Err(_) => {}
    }
    findings.push(match grub_images::arm64_folder(config.boot.arm64_grub.as_deref()) {
        Ok(folder) => right(format!("loader for arm64 PCs: made of {}", folder.display())),
        Err(error) if config.boot.arm64_grub.is_some() => viewer.failed(&error),
        Err(error) => Verdict::Right(error_chain(&error)),
    });
    if config.boot.needs_ipxe() {
        findings.push(match IpxeLoaders::find() {
            Ok(ipxe) => {
                right(format!("iPXE for PCs that are to have it: {}", ipxe.folder().display()))
            }
            Err(error) => viewer.failed(&error),
        });
    }
    let has_ca = config.storage.nbd_tls.as_ref().is_some_and(|tls| tls.machine_ca.is_some());
    findings.extend(Architecture::ALL.into_iter().filter_map(|it| init(it, has_ca)));
    findings.push(privileges::check_admins(config).into());
    findings
}

/// The init that goes into initrds for such machines.
fn init(architecture: Architecture, has_ca: bool) -> Option<Verdict> {
    let name = service::init_name(architecture, has_ca);
    Some(match (service::find_init(name), architecture) {
        (Some(path), _) => match std::fs::read(&path).map(initrd_builder::Init::parse) {
            Ok(Ok(_)) => {
                Verdict::Right(format!("init for initrds of {architecture}: {}", path.display()))
            }
            Ok(Err(error)) => {
                Verdict::Wrong(format!("{}: {}", path.display(), error_chain(&error)))
            }
            Err(error) => Verdict::Wrong(format!("can't read {}: {error}", path.display())),
        },
        (None, Architecture::X86_64) => Verdict::Wrong(format!(
            "{name} is neither beside this program nor in /usr/lib/bootlace: no initrd can be built; \
             cargo xtask build makes it"
        )),
        // Who has no such image needs none.
        (None, Architecture::Arm64) => return None,
    })
}

/// Looks at all of them at once, as each waits for answers; in their order.
pub(crate) fn at_once<T: Send, R: Send>(
    all: impl IntoIterator<Item = T>,
    look: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    thread::scope(|scope| {
        let look = &look;
        let looks: Vec<_> = all.into_iter().map(|one| scope.spawn(move || look(one))).collect();
        looks.into_iter().filter_map(|it| it.join().ok()).collect()
    })
}

/// Servers that PCs are told, and no way to them.
fn beyond_reach(served: &Served) -> Option<Verdict> {
    let Network { subnet, prefix, router, routes, dns, ntp, .. } = &served.network;
    let is_beyond = |server: &&Ipv4Addr| {
        !served.network.holds(**server) && !routes.iter().any(|route| route.leads_to(**server))
    };
    let beyond = dns.iter().chain(ntp).filter(is_beyond).map(Ipv4Addr::to_string);
    let beyond: Vec<String> = beyond.collect();
    // Whoever gives the addresses names the router otherwise.
    let is_told = served.pool.is_some() && router.is_none() && !beyond.is_empty();
    is_told.then(|| {
        Verdict::Better(format!(
            "PCs of {subnet}/{prefix} are told servers (dns, ntp) to which they know no way: {}. Set router there, or routes",
            beyond.join(", ")
        ))
    })
}

/// Over which network machines have their disks, if not over that from which they boot.
fn storage(served: &Served) -> Option<Verdict> {
    let Served { network, storage, pool, .. } = served;
    let StoragePlace { interface, server, subnet, .. } = storage.as_ref()?;
    let there = network.storage?;
    let as_whom = pool.map_or_else(String::new, |pool| {
        let (first, last) = (there.address_of(pool.first), there.address_of(pool.last));
        format!("; those of the pool are {first}-{last} there, which nobody else may be")
    });
    let Network { subnet: boot, prefix, .. } = network;
    let told = format!(
        "machines of {boot}/{prefix} have their disks over the storage network {subnet}, from {server} (interface {interface})\
         {as_whom}"
    );
    Some(match *interface == served.interface {
        false => Verdict::Right(told),
        true => Verdict::Better(format!(
            "{told}. That is the card by which they boot, too, so disks share its cable with all else: give {server} to another card"
        )),
    })
}

/// Why a port can't be had that a server with this configuration needs.
pub(crate) fn port_trouble(paths: &Paths, config: &Config, networks: &[Served]) -> Option<String> {
    let verdicts = ports::ports(config, networks, &Ours::find(paths), Viewer::of(paths));
    verdicts.into_iter().find_map(|verdict| match verdict {
        Verdict::Wrong(text) => Some(text),
        Verdict::Right(_) | Verdict::Better(_) | Verdict::Unseen(_) => None,
    })
}

/// Who looks.
#[derive(Clone, Copy)]
struct Viewer {
    /// The servers would run as this user, if they were started from here.
    is_theirs: bool,
}

impl Viewer {
    fn of(paths: &Paths) -> Self {
        Self { is_theirs: privileges::is_owner(&paths.state()) }
    }

    /// What a failure means: that something is wrong, or that this user may not see it.
    fn failed(self, error: &(dyn Error + 'static)) -> Verdict {
        let mut causes = std::iter::successors(Some(error), |error| (*error).source());
        let is_denied = causes.any(|cause| {
            let cause = cause.downcast_ref::<io::Error>();
            cause.is_some_and(|cause| cause.kind() == ErrorKind::PermissionDenied)
        });
        let told = error_chain(error);
        if is_denied && !self.is_theirs { Verdict::Unseen(told) } else { Verdict::Wrong(told) }
    }
}

/// By what ways findings are told, and which of the files for that can't be read: the servers start all the same.
fn alerts(config: &Config) -> impl Iterator<Item = Verdict> {
    let ways = ways(&config.alerts).into_iter();
    let unreadable = config.alerts.files().filter_map(|file| {
        let error = File::open(file).err()?;
        Some(Verdict::Better(format!(
            "alerts: can't read {}: {error}; none is sent without it",
            file.display()
        )))
    });
    let told = ways.map(|way| match &way {
        // Who is told is nobody's business who only looks whether all is well.
        Way::Mail(mail) => {
            let n_persons = mail.to.len();
            format!("alerts: mail by {}:{}, to {n_persons} in all", mail.host, mail.port)
        }
        Way::Webhook(_) => format!("alerts: {}", way.whither()),
    });
    told.map(Verdict::Right).chain(unreadable)
}

/// Whether the directory answers: the servers start all the same.
fn ldap(config: &LdapConfig, viewer: Viewer) -> Verdict {
    let url = &config.url;
    for file in config.files() {
        match File::open(file) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied && !viewer.is_theirs => {
                let file = file.display();
                return Verdict::Unseen(format!(
                    "whether the directory {url} answers, without {file}"
                ));
            }
            _ => {}
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            return Verdict::Wrong(format!("the directory {url} can't be asked: {error}"));
        }
    };
    match runtime.block_on(directory::check(config)) {
        Ok(done) => Verdict::Right(format!("directory {url}: it answers ({})", done.join(", "))),
        Err(failed) => Verdict::Better(format!(
            "directory {url}: only accounts of this server can log in, since {failed}. {}",
            failed.help
        )),
    }
}

/// What is wrong with certificates that can be read: servers start with them, and are refused by their clients.
fn certificates(paths: &Paths, config: &Config) -> Vec<Verdict> {
    let now = Timestamp::now();
    let web = &config.web;
    let mut verdicts: Vec<Verdict> = Vec::new();
    for used in certificates::used(paths, config, web.listen) {
        let (how, _) = used.look(now);
        let remedy = used.remedy;
        let told = used.trouble(&how);
        verdicts.extend(told.and_then(|told| match how {
            How::Soon(..) => Some(Verdict::Better(format!("{told}: {remedy}"))),
            How::Over(_) => Some(Verdict::Wrong(format!(
                "{told}: {remedy}. If that day is yet to come, the clock of this computer is wrong"
            ))),
            How::NotYet(_) => Some(Verdict::Wrong(format!(
                "{told}: {remedy}. If that day has come, the clock of this computer is wrong"
            ))),
            // Told already.
            _ if web.certificate.as_ref() == Some(&used.path) => None,
            How::NotUnderstood | How::Unreadable(_) => {
                Some(Verdict::Wrong(format!("{told}: {remedy}")))
            }
            How::Good(_) | How::Unseen => None,
        }));
    }
    if let Some(path) = &web.certificate {
        let listen = web.listen.ip();
        let is_one = !listen.is_unspecified() && !listen.to_canonical().is_loopback();
        // Who has given names has browsers call them.
        let address = (web.names.is_empty() && is_one).then(|| listen.to_string());
        let wanted = web.names.iter().map(String::as_str).chain(address.as_deref());
        let lacking = certificates::lacking(path, wanted);
        if !lacking.is_empty() {
            verdicts.push(Verdict::Better(format!(
                "browsers that open the page as {} refuse it: the certificate {} does not name that; make one that does, \
                 in its subjectAltName",
                lacking.join(" or "),
                path.display()
            )));
        }
    }
    verdicts
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
            match authority
                .try_exists()
                .with_context(|| format!("can't find {}", authority.display()))?
            {
                true => {
                    let page = folder.join(PAGE_CERTIFICATE);
                    let page = match page.try_exists()? {
                        true => format!("certificate with SHA-256 {}, ", fingerprint(&page)?),
                        false => String::new(),
                    };
                    format!(
                        "web page: https://{listen}, {page}authority {}, SHA-256 {}",
                        authority.display(),
                        fingerprint(&authority)?
                    )
                }
                false => format!(
                    "web page: https://{listen}, by an authority that is made at the first start"
                ),
            }
        }
    })
}
