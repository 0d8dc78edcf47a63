//! What a boot client may fetch, by TFTP or HTTP. There is no folder behind it to walk out of.

use crate::boot::elsewhere::is_elsewhere;
use crate::boot::file_cache::FileCache;
use crate::boot::grub_images::{ARM64_FILE, GrubImages};
use crate::boot::ipxe_loaders::IpxeLoaders;
use crate::boot::signed_loader::SignedLoader;
use crate::net::neighbours::Neighbours;
use bytes::Bytes;
use initcfg::{CaptureProof, FilesAsked, Tag};
use model::{
    BootFile, BootId, ENTRY_PATH, Fetch, FindingKind, IPXE_ENTRY_PATH, IPXE_FOLDER, LoaderAsk,
    LoaderClaim, MEMORY_TEST_FOLDER, Network, SIGNED_ENTRY_PATHS, Stage, Subject,
};
use service::{Capturing, Link, NewStage, Service, Traffic};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tokio::sync::mpsc;
use wire::Mac;

/// Longest archive with the rescue shell: its busybox, and the archive around it.
const RESCUE_ARCHIVE_MAX: usize = initcfg::RESCUE_BUSYBOX_MAX + (64 << 10);

/// What a loader gets that tells that it runs. GRUB takes the first line for a comment, too.
const NOTED: &str = "#!ipxe\n# Noted.\n";

/// Everything that boot clients can fetch, by TFTP or HTTP.
#[derive(Clone)]
pub(crate) struct BootFiles {
    inner: Arc<Inner>,
    /// At which of our addresses they are asked for.
    server: Ipv4Addr,
}

struct Inner {
    service: Service,
    loaders: Loaders,
    foreign_dhcp: bool,
    /// PCs that wait in their loader: nothing there renews their lease.
    alive: mpsc::Sender<Mac>,
    neighbours: Neighbours,
    cache: FileCache,
}

/// What firmware can load.
#[derive(Clone, Debug)]
pub(crate) struct Loaders {
    /// Our own, each with an address of ours inside.
    pub(crate) grub: Vec<(Ipv4Addr, GrubImages)>,
    /// The distribution's, if the server has it.
    pub(crate) signed: Option<SignedLoader>,
    /// The same for arm64 PCs.
    pub(crate) signed_arm64: Option<SignedLoader>,
    /// iPXE's, if some PC is to get it.
    pub(crate) ipxe: Option<IpxeLoaders>,
}

impl Loaders {
    /// Whether there is one for arm64 PCs.
    pub(crate) fn has_arm64(&self) -> bool {
        self.grub.iter().any(|(_, images)| images.get(ARM64_FILE).is_some())
    }

    /// The file of that name for who asks at that address of ours, and how it is called.
    fn get(&self, server: Ipv4Addr, file: &str) -> Option<(&'static str, Bytes)> {
        let (_, grub) = self.grub.iter().find(|(address, _)| *address == server)?;
        let signed = || {
            let both = self.signed.iter().chain(&self.signed_arm64);
            both.into_iter().find_map(|signed| signed.get(file))
        };
        let ipxe = || self.ipxe.as_ref()?.get(file);
        grub.get(file).or_else(signed).or_else(ipxe)
    }
}

/// A file and what fetching it means for a boot.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// The content.
    pub(crate) bytes: Bytes,
    /// Stage that a boot has reached when it has the whole file.
    pub(crate) stage: Option<Stage>,
}

/// What a machine's init tells of its boot, beside its stages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told {
    /// The kernel's log of a boot that failed.
    KernelLog,
    /// The list of its hardware.
    Hardware,
}

impl Told {
    /// What is told at this path, and the rest of it, the boot's number.
    pub(crate) fn of(path: &str) -> Option<(Self, &str)> {
        let all = [Self::KernelLog, Self::Hardware];
        all.into_iter().find_map(|told| Some((told, path.strip_prefix(told.folder())?)))
    }

    fn folder(self) -> &'static str {
        match self {
            Self::KernelLog => initcfg::KERNEL_LOG_PATH,
            Self::Hardware => initcfg::HARDWARE_PATH,
        }
    }

    /// Where a boot tells it.
    fn path(self, boot: BootId) -> String {
        format!("{}{boot}", self.folder())
    }

    /// Longest text in bytes.
    pub(crate) fn bytes_max(self) -> usize {
        match self {
            Self::KernelLog => initcfg::KERNEL_LOG_MAX,
            Self::Hardware => initcfg::HARDWARE_MAX,
        }
    }
}

impl BootFiles {
    /// The boot files of `service`, for clients of the boot server that ask at its address on `network`; `neighbours` are those
    /// of all networks. PCs that wait in their loader go to `alive`.
    pub(crate) fn new(
        service: Service,
        loaders: Loaders,
        network: &Network,
        neighbours: Neighbours,
        alive: mpsc::Sender<Mac>,
    ) -> Self {
        let cache = FileCache::default();
        let foreign_dhcp = network.foreign_dhcp;
        let inner = Inner { service, loaders, foreign_dhcp, alive, neighbours, cache };
        Self { inner: Arc::new(inner), server: network.server }
    }

    /// The same for who asks at another address of ours.
    pub(crate) fn at(&self, server: Ipv4Addr) -> Self {
        Self { server, ..self.clone() }
    }

    /// What the client at `peer` gets for `path`: a file, or its machine's configuration. That is had by TFTP, where GRUB itself
    /// asks, or else only as long as the machine is in its loader: any program of a running system could ask by HTTP.
    pub(crate) async fn get(&self, path: &str, peer: Ipv4Addr, fetch: Fetch) -> Option<Item> {
        let path = normalize(path);
        let fetch = match (path.starts_with(IPXE_FOLDER), fetch) {
            (true, Fetch::Itself) => Fetch::ByIpxe,
            // It has its own TFTP however it was started.
            (true, _) => return None,
            (false, fetch) => fetch,
        };
        let path = path.as_str();
        let text = match LoaderClaim::parse(path) {
            Some(claim) if self.inner.foreign_dhcp => self.claimed(claim, peer, fetch).await?,
            Some(claim) => self.medium_runs(claim, peer, fetch).await?,
            None => match LoaderAsk::parse(path) {
                Some(ask) => self.machine_config(peer, &ask, fetch).await?,
                None => return self.file(path, fetch).await,
            },
        };
        Some(Item { bytes: Bytes::from(text), stage: None })
    }

    /// Who is on the boot network.
    pub(crate) fn neighbours(&self) -> Neighbours {
        self.inner.neighbours.clone()
    }

    async fn machine_config(
        &self,
        peer: Ipv4Addr,
        ask: &LoaderAsk,
        fetch: Fetch,
    ) -> Option<String> {
        let service = &self.inner.service;
        if let Some(mac) = service.owner_of(peer) {
            // If so many wait to be heard, it asks again before its lease ends.
            let _ = self.inner.alive.try_send(mac);
        }
        // The service itself notes the stage: it knows whether the machine boots or waits.
        let config = match fetch {
            Fetch::Itself => service.loader_config(peer, ask).await,
            Fetch::ByIpxe => service.loader_config_by_ipxe(peer, ask).await,
            Fetch::ByFirmware => service.loader_config_by_http(peer, ask).await?,
        };
        Some(config.text)
    }

    /// What a PC gets that says who it is. Who is on the link is seen; of who is behind a router nothing is known but that, and it
    /// counts unless the machine is known to be elsewhere.
    async fn claimed(&self, claim: LoaderClaim, peer: Ipv4Addr, fetch: Fetch) -> Option<String> {
        let LoaderClaim { ask, firmware, mac } = claim;
        let service = &self.inner.service;
        let neighbours = &self.inner.neighbours;
        let but = match neighbours.link_to(peer).await {
            Link::Routed => is_elsewhere(service, neighbours, mac, peer).await,
            link => seen_otherwise(link, mac, peer),
        };
        if let Some(but) = but {
            service.traffic().refused("tftp", "not-its-address");
            return Some(service.loader_is_mistaken(peer, mac, &but, fetch));
        }
        // By HTTP any program of a running system could say so, too.
        let noted = match (&ask, fetch) {
            (LoaderAsk::Start, Fetch::Itself | Fetch::ByIpxe) => {
                service.loader_runs(mac, firmware, peer).await
            }
            _ => service.has_address(mac, peer).await,
        };
        if let Err(error) = noted {
            tracing::warn!(%mac, error = error.chain(), "that a PC asks could not be noted");
        }
        match ask {
            LoaderAsk::Start => Some(NOTED.to_owned()),
            ask => self.machine_config(peer, &ask, fetch).await,
        }
    }

    /// What a PC gets that says that it was started from a medium. Its address is ours, and who has it is known: it must be the NIC
    /// that it names, and that is seen there.
    async fn medium_runs(
        &self,
        claim: LoaderClaim,
        peer: Ipv4Addr,
        fetch: Fetch,
    ) -> Option<String> {
        let LoaderClaim { ask: LoaderAsk::Start, firmware, mac } = claim else { return None };
        if fetch != Fetch::Itself {
            return None;
        }
        let service = &self.inner.service;
        let link = self.inner.neighbours.link_to(peer).await;
        let but = seen_otherwise(link, mac, peer).or_else(|| {
            let is_its = service.owner_of(peer) == Some(mac);
            (!is_its).then(|| format!("{peer} is not the address of that card"))
        });
        if let Some(but) = but {
            service.traffic().refused("tftp", "not-its-address");
            return Some(service.loader_is_mistaken(peer, mac, &but, fetch));
        }
        if let Err(error) = service.medium_runs(mac, firmware, peer).await {
            tracing::warn!(%mac, error = error.chain(), "that a PC asks could not be noted");
        }
        Some(NOTED.to_owned())
    }

    /// Whether only one boot of one machine gets what is at this path.
    pub(crate) fn is_host(path: &str) -> bool {
        let path = normalize(path);
        [initcfg::HOST_ARCHIVE_PATH, initcfg::HOST_FILE_PATH, initcfg::FILES_PATH]
            .into_iter()
            .any(|folder| path.starts_with(folder))
    }

    /// What only one boot of the client's machine gets; the outer `None` if the path is not of that. By TCP only: who asks
    /// by TFTP may be anybody who writes the machine's address as his own.
    pub(crate) async fn host(&self, path: &str, peer: Ipv4Addr) -> Option<Option<Item>> {
        let path = normalize(path);
        let service = &self.inner.service;
        if path.starts_with(initcfg::FILES_PATH) {
            return Some(self.laid_files(&path, peer).await);
        }
        let archive = path.strip_prefix(initcfg::HOST_ARCHIVE_PATH);
        let boot = archive.or_else(|| path.strip_prefix(initcfg::HOST_FILE_PATH))?.parse().ok()?;
        let link = self.inner.neighbours.link_to(peer).await;
        let made = if archive.is_some() {
            service.host_archive(peer, link, boot).await
        } else {
            service.host_file(peer, link, boot).await.map(|file| file.map(Vec::from))
        };
        let bytes = made.unwrap_or_else(|error| {
            tracing::error!(%peer, error = error.chain(), "a host segment can't be made");
            None
        });
        Some(bytes.map(|bytes| Item { bytes: Bytes::from(bytes), stage: None }))
    }

    /// What a boot lays over its root, sealed by its secret.
    async fn laid_files(&self, path: &str, peer: Ipv4Addr) -> Option<Item> {
        let asked = FilesAsked::from_path(path)?;
        let sealed = self.inner.service.sealed_files(peer, asked).await;
        let sealed = sealed.unwrap_or_else(|error| {
            tracing::error!(%peer, error = error.chain(), "files can't be laid over a machine's root");
            None
        });
        sealed.map(|bytes| Item { bytes: Bytes::from(bytes), stage: None })
    }

    /// The file at `path`, the same for everybody; `None` if there is none.
    async fn file(&self, path: &str, fetch: Fetch) -> Option<Item> {
        let path = normalize(path);
        let stage = self.stage_of(&path);
        if path == ENTRY_PATH || SIGNED_ENTRY_PATHS.contains(&path.as_str()) {
            let text = model::entry_cfg(self.server, fetch, self.inner.foreign_dhcp);
            return Some(Item { bytes: Bytes::from(text), stage });
        }
        if path == IPXE_ENTRY_PATH {
            let text = model::entry_ipxe(self.server, self.inner.foreign_dhcp);
            return Some(Item { bytes: Bytes::from(text), stage: None });
        }
        if let Some((_, loader)) = self.inner.loaders.get(self.server, &path[1..]) {
            return Some(Item { bytes: loader, stage });
        }
        if path == initcfg::RESCUE_ARCHIVE_PATH {
            return self.rescue_archive().await;
        }
        if let Some(platform) = path.strip_prefix(MEMORY_TEST_FOLDER) {
            return self.memory_test(platform).await;
        }
        let file_path = self.inner.service.boot_file(&path.parse().ok()?)?;
        match self.inner.cache.read(&file_path).await {
            Ok(bytes) => Some(Item { bytes, stage }),
            Err(error) => {
                let cause = format!("A boot file can't be read: {}: {error}", file_path.display());
                self.inner.service.found(FindingKind::FileUnreadable, &Subject::Server, cause);
                None
            }
        }
    }

    /// The memory test for this kind of firmware.
    async fn memory_test(&self, platform: &str) -> Option<Item> {
        let file = service::memory_test(platform)?;
        match self.inner.cache.read(&file).await {
            Ok(bytes) => Some(Item { bytes, stage: None }),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the memory test can't be handed out");
                None
            }
        }
    }

    async fn rescue_archive(&self) -> Option<Item> {
        let make = self.inner.service.rescue_archive();
        let shared = self.inner.cache.share(initcfg::RESCUE_ARCHIVE_PATH, RESCUE_ARCHIVE_MAX, make);
        match shared.await {
            Ok(bytes) => Some(Item { bytes, stage: None }),
            Err(error) => {
                tracing::error!(error = error.chain(), "the rescue shell can't be handed out");
                None
            }
        }
    }

    /// Stage that a boot has reached when it has the whole of `path`.
    pub(crate) fn stage_of(&self, path: &str) -> Option<Stage> {
        let path = normalize(path);
        if self.inner.loaders.get(self.server, &path[1..]).is_some() {
            return Some(Stage::Loader);
        }
        path.parse().ok().map(|file: BootFile| file.part.stage())
    }

    /// What a stage says about how `path` was fetched.
    pub(crate) fn detail(&self, path: &str, how: String) -> String {
        match self.inner.loaders.get(self.server, &normalize(path)[1..]) {
            Some((file, _)) => model::loader_detail(file, &how),
            None => how,
        }
    }

    /// Notes that the client at `peer` goes on with a file that belongs to a boot.
    pub(crate) fn goes_on(&self, peer: Ipv4Addr, n_bytes: u64, size_bytes: u64) {
        if let Some(mac) = self.mac_of(peer) {
            self.inner.service.goes_on(mac, n_bytes, size_bytes);
        }
    }

    /// Notes that the client at `peer` has fetched something whole; `None` if its address is nobody's. It is
    /// queued when this returns; the future waits until it is stored.
    pub(crate) fn fetched(
        &self,
        stage: Stage,
        peer: Ipv4Addr,
        detail: String,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let mac = self.mac_of(peer)?;
        let noted = self.inner.service.stage(mac, None, NewStage::noticed(stage, detail));
        Some(async move {
            if let Err(error) = noted.await {
                tracing::warn!(%mac, %stage, error = error.chain(), "a stage could not be recorded");
            }
        })
    }

    /// Keeps what the client's init tells of its boot; whether it was taken.
    pub(crate) async fn keep(
        &self,
        told: Told,
        peer: Ipv4Addr,
        boot: &str,
        text: &[u8],
        tag: Option<Tag>,
    ) -> bool {
        let (Some(mac), Ok(boot)) = (self.mac_of(peer), boot.parse()) else { return false };
        let service = &self.inner.service;
        let sealed = initcfg::upload(&told.path(boot), text);
        if !service.believes(mac, boot, &sealed, tag).await {
            return false;
        }
        let kept = match told {
            Told::KernelLog => service.keep_kernel_log(mac, boot, text).await,
            Told::Hardware => service.keep_hardware(mac, boot, text).await,
        };
        kept.unwrap_or_else(|error| {
            tracing::warn!(%mac, ?told, error = error.chain(), "what a machine sent could not be kept");
            false
        })
    }

    /// Begins to take what the client captures of itself; `None`: it may not.
    ///
    /// # Errors
    /// Why not now, in words.
    pub(crate) async fn capture(
        &self,
        peer: Ipv4Addr,
        proof: CaptureProof,
    ) -> Result<Option<Capturing>, String> {
        let begun = self.inner.service.capture(peer, proof).await;
        begun.map_err(|error| error.chain())
    }

    /// Whether nobody has that address from us.
    pub(crate) fn is_stranger(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.mac_of(address).is_none(),
            IpAddr::V6(_) => true,
        }
    }

    /// What a finding about who has that address is about.
    pub(crate) fn subject(&self, address: IpAddr) -> Subject {
        let IpAddr::V4(address) = address.to_canonical() else { return Subject::Server };
        let site = self.inner.service.site();
        let machine = self.mac_of(address).and_then(|mac| site.machine_by_mac(mac));
        machine.map_or(Subject::Address(address), |machine| Subject::Machine(machine.name.clone()))
    }

    /// How large a packet may be in the network that has this address, if that is set.
    pub(crate) fn mtu_at(&self, address: Ipv4Addr) -> Option<u16> {
        self.inner.service.mtu_at(address)
    }

    /// What was sent and refused.
    pub(crate) fn traffic(&self) -> &Traffic {
        self.inner.service.traffic()
    }

    /// Tells people of something.
    pub(crate) fn found(&self, kind: FindingKind, subject: &Subject, cause: String) {
        self.inner.service.found(kind, subject, cause);
    }

    /// It is no longer so.
    pub(crate) fn resolved(&self, kind: FindingKind, subject: &Subject) {
        self.inner.service.resolved(kind, subject);
    }

    /// Whose address it is. Where another server gives them, one may have gone to somebody else since, so it is seen who has it.
    fn mac_of(&self, address: Ipv4Addr) -> Option<Mac> {
        let owner = || self.inner.service.owner_of(address);
        match self.inner.foreign_dhcp && self.inner.neighbours.is_on_link(address) {
            true => self.inner.neighbours.known(address).or_else(owner),
            false => owner(),
        }
    }
}

/// What is seen at an address where this NIC is said to be, if it is something else; behind a router nothing is.
fn seen_otherwise(link: Link, mac: Mac, address: Ipv4Addr) -> Option<String> {
    match link {
        Link::Neighbour(seen) if seen == mac => None,
        Link::Neighbour(seen) => Some(format!("{seen} answers at its address {address}")),
        Link::Silent => Some(format!("nobody answers at its address {address}")),
        Link::Routed => None,
    }
}

/// One leading slash, no doubled ones: firmware and loaders write paths in all ways.
fn normalize(path: &str) -> String {
    let mut normal = String::from("/");
    for part in path.split(['/', '\\']).filter(|part| !part.is_empty() && *part != ".") {
        if normal.len() > 1 {
            normal.push('/');
        }
        normal.push_str(part);
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::{Told, normalize};

    #[test]
    fn a_proof_is_for_the_path_at_which_something_is_told() {
        for path in ["/kernel-log/42", "/hardware/42"] {
            let (told, boot) = Told::of(path).unwrap();
            assert_eq!(told.path(boot.parse().unwrap()), path);
        }
        assert!(Told::of("/host/42").is_none());
    }

    #[test]
    fn paths_are_taken_as_clients_write_them() {
        for path in ["grub/grub.cfg", "/grub//grub.cfg", "\\grub\\grub.cfg", "/./grub/grub.cfg"] {
            assert_eq!(normalize(path), "/grub/grub.cfg", "{path}");
        }
        assert_eq!(normalize(""), "/");
        assert_eq!(normalize("/../etc/passwd"), "/../etc/passwd", "matches no boot file");
    }
}
