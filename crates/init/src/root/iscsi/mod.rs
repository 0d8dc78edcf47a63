//! Attaches a disk of a foreign server over iSCSI: our login, then the kernel's initiator does the rest.

mod kernel;

use crate::console::Console;
use crate::failure::Failure;
use crate::modules::{Modules, cannot_load};
use crate::net::tcp;
use crate::patience::Patience;
use crate::root::disk::Disk;
use crate::root::iscsi::kernel::{Kernel, Parameter};
use crate::sysfs;
use ::iscsi::{Agreed, HEADER_BYTES, Identity, Login, LoginError, Step};
use initcfg::{IscsiRoot, iscsi_initiator};
use std::io;
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};
use wire::Mac;

/// Names our session: always by these bytes, so that a target ends the one that a reset left behind.
const ISID: [u8; 6] = [0x80, b'b', b'o', b'o', 0, 0];

/// The kernel holds all requests for as long as the connection is lost: never give up.
const NEVER: &str = "-1";

/// A slow disk must not look like a dead one.
const REQUEST_TIMEOUT_S: &str = "180";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const SILENT_AT_FIRST: Duration = Duration::from_secs(2);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);

/// After this time the target is asked again which disks it has.
const SCAN_EVERY: Duration = Duration::from_secs(5);

/// Connects and waits for the disk, for as long as it takes.
pub(crate) fn attach(
    root: &IscsiRoot,
    mac: Mac,
    modules: &Modules,
    console: &Console,
) -> Result<Disk, Failure> {
    for module in ["iscsi_tcp", "sd_mod"] {
        modules.load(module, "").map_err(|error| cannot_load(module, &error, modules))?;
    }
    let kernel_fault = |error: io::Error| {
        Failure::new(
            format!("the kernel's iSCSI initiator can't be used: {error}"),
            "this is a fault of the kernel or of this initrd: try another kernel version",
        )
    };
    let mut kernel = Kernel::open().map_err(kernel_fault)?;
    let (session, host) = kernel.create_session().map_err(kernel_fault)?;
    let mut link = Link { kernel, session, root: root.clone(), mac };
    let mut patience = Patience::new(console, "attach");
    let started = Instant::now();
    let mut retry = RETRY_FIRST;
    while let Err(error) = link.connect() {
        if started.elapsed() > SILENT_AT_FIRST || matches!(error, ConnectError::Login(_)) {
            patience.waiting(&link.why(&error));
        }
        std::thread::sleep(retry);
        retry = (retry * 2).min(RETRY_MAX);
    }
    let disk = wait_for_disk(&link, host, &mut patience);
    sysfs::tune(disk.sys("device/timeout"), REQUEST_TIMEOUT_S);
    Ok(disk)
}

/// Has the kernel look for the disk until it is there.
fn wait_for_disk(link: &Link, host: u32, patience: &mut Patience<'_>) -> Disk {
    let started = Instant::now();
    let mut next_scan = Duration::ZERO;
    loop {
        if started.elapsed() >= next_scan {
            let scan = format!("- - {}", link.root.lun);
            sysfs::tune(format!("/sys/class/scsi_host/host{host}/scan"), &scan);
            next_scan = started.elapsed() + SCAN_EVERY;
        }
        if let Some(disk) = find_disk(link.session, link.root.lun)
            && disk.size_bytes().is_some()
            && std::fs::exists(disk.device()).unwrap_or(false)
        {
            return disk;
        }
        if started.elapsed() > SILENT_AT_FIRST {
            patience.waiting(&format!(
                "waiting for disk {} of {}: the target is there, but has no such disk for this machine",
                link.root.lun, link.root.target
            ));
        }
        std::thread::sleep(POLL);
    }
}

/// The block device of a session's disk: `…/sessionS/device/targetH:C:I/H:C:I:LUN/block/sdX`.
fn find_disk(session: u32, lun: u16) -> Option<Disk> {
    let folder = format!("/sys/class/iscsi_session/session{session}/device");
    let targets = sysfs::names(&folder).into_iter().filter(|name| name.starts_with("target"));
    targets.into_iter().find_map(|target| {
        let names = sysfs::names(format!("{folder}/{target}"));
        let unit = names.into_iter().find(|name| {
            name.rsplit_once(':').is_some_and(|(_, number)| number.parse() == Ok(lun))
                && !name.starts_with("target")
        })?;
        let name = sysfs::names(format!("{folder}/{target}/{unit}/block")).into_iter().next()?;
        Some(Disk { name })
    })
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The portal can't be reached, or hangs up.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The target says no.
    #[error(transparent)]
    Login(#[from] LoginError),
}

/// The session of the root disk: [`wait_for_loss`](Self::wait_for_loss), then
/// [`reconnect`](Self::reconnect) until that succeeds, and so on.
pub(crate) struct Link {
    kernel: Kernel,
    session: u32,
    root: IscsiRoot,
    mac: Mac,
}

impl Link {
    /// The session that the kernel has, for the keeper.
    pub(crate) fn open(root: &IscsiRoot, mac: Mac) -> io::Result<Self> {
        let kernel = Kernel::open()?;
        let names = sysfs::names("/sys/class/iscsi_session");
        let session = names.iter().find_map(|name| name.strip_prefix("session")?.parse().ok());
        let session = session.ok_or_else(|| io::Error::other("there is no iSCSI session"))?;
        Ok(Self { kernel, session, root: root.clone(), mac })
    }

    /// Waits until the connection is lost. What was lost before anybody listened counts, too.
    pub(crate) fn wait_for_loss(&self) {
        let state = sysfs::read(format!("/sys/class/iscsi_session/session{}/state", self.session));
        if state.is_some_and(|state| state != "LOGGED_IN") {
            return;
        }
        // An error: events were lost, and this one may be among them.
        let _ = self.kernel.wait_for_loss(self.session);
    }

    /// Takes the lost connection from the kernel and gives it another.
    pub(crate) fn reconnect(&mut self) -> Result<(), String> {
        let stopped = self.kernel.stop(self.session);
        stopped.map_err(|error| format!("the kernel does not give up the connection: {error}"))?;
        self.connect().map_err(|error| self.why(&error))
    }

    /// Where the target listens.
    pub(crate) fn portal(&self) -> SocketAddrV4 {
        self.root.portal
    }

    pub(crate) fn why(&self, error: &ConnectError) -> String {
        let IscsiRoot { portal, target, .. } = &self.root;
        match error {
            ConnectError::Login(error) => {
                format!("the iSCSI server {portal} does not give {target}: {error}")
            }
            ConnectError::Io(error) => {
                format!(
                    "waiting for the iSCSI server {portal}: {}",
                    tcp::unreachable(error, "iSCSI server")
                )
            }
        }
    }

    fn connect(&mut self) -> Result<(), ConnectError> {
        let portal = self.root.portal;
        let stream = TcpStream::connect_timeout(&SocketAddr::V4(portal), CONNECT_TIMEOUT)?;
        tcp::tune(&stream)?;
        self.kernel.bind(self.session, &stream)?;
        // The kernel has the socket from here on; ours is closed at the end.
        match self.log_in() {
            Ok(agreed) => Ok(self.start(&agreed)?),
            Err(error) => {
                // Another try wants another connection.
                let _ = self.kernel.stop(self.session);
                Err(error)
            }
        }
    }

    fn log_in(&mut self) -> Result<Agreed, ConnectError> {
        let mut login = Login::new(Identity {
            initiator: iscsi_initiator(self.mac),
            target: self.root.target.clone(),
            isid: ISID,
        });
        loop {
            match login.step() {
                Step::Done(agreed) => return Ok(agreed),
                Step::Exchange(request, text) => {
                    let pdu = self.kernel.exchange(self.session, &request.to_bytes(), &text)?;
                    let (header, text) = pdu.split_at(pdu.len().min(HEADER_BYTES));
                    login.on_response(header, text)?;
                }
            }
        }
    }

    fn start(&mut self, agreed: &Agreed) -> io::Result<()> {
        for (parameter, value) in self.parameters(agreed) {
            self.kernel.set(self.session, parameter, &value)?;
        }
        self.kernel.start(self.session)
    }

    fn parameters(&self, agreed: &Agreed) -> Vec<(Parameter, String)> {
        let yes = |is_so: bool| u8::from(is_so).to_string();
        vec![
            (Parameter::ReceiveMax, agreed.receive_max.to_string()),
            (Parameter::SendMax, agreed.send_max.to_string()),
            (Parameter::HeaderDigest, yes(false)),
            (Parameter::DataDigest, yes(false)),
            (Parameter::InitialR2t, yes(agreed.initial_r2t)),
            (Parameter::R2tMax, "1".to_owned()),
            (Parameter::ImmediateData, yes(agreed.immediate_data)),
            (Parameter::FirstBurstMax, agreed.first_burst_max.to_string()),
            (Parameter::BurstMax, agreed.burst_max.to_string()),
            (Parameter::PduInOrder, yes(true)),
            (Parameter::SequenceInOrder, yes(true)),
            (Parameter::RecoveryLevel, "0".to_owned()),
            (Parameter::ExpectedStatus, agreed.expected_status.to_string()),
            // What follows is for people and their tools, but for the timeout.
            (Parameter::TargetName, self.root.target.clone()),
            (Parameter::PortalGroup, agreed.portal_group.to_string()),
            (Parameter::PersistentAddress, self.root.portal.ip().to_string()),
            (Parameter::PersistentPort, self.root.portal.port().to_string()),
            (Parameter::InitiatorName, iscsi_initiator(self.mac)),
            (Parameter::RecoveryTimeout, NEVER.to_owned()),
        ]
    }
}
