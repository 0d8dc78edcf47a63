//! A site as the boot server uses it, with a storage server that only takes notes.

mod arm64;
mod as_root;
mod boots;
mod bounds;
mod candidates;
mod captures;
mod directory;
mod disks;
mod exchange;
mod files;
mod further_disks;
mod initrds;
mod leases;
mod lost;
mod macs;
mod menus;
mod on_the_way;
mod owners;
mod people;
mod reach;
mod releases;
mod rings;
mod rooms;
mod secrets;
mod state;
mod storage;
mod time;
mod tried;
mod waiting;

use crate::initrds::{InitrdState, Recipe};
use crate::{Error, Link, MachineChange, NewStage, Options, Service, Sighting, StateWord};
use disks::start_storage;
use model::{
    Firmware, ImageName, Lease, Machine, MachineName, Network, RootKind, Stage, WriteMode,
};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::{Arc, Mutex};
use wire::Mac;

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 101);
const OWN: Link = Link::Neighbour(MAC);

fn options(root: &Path) -> Options {
    let server = Ipv4Addr::new(10, 77, 0, 1);
    let network = Network {
        server,
        subnet: Ipv4Addr::new(10, 77, 0, 0),
        prefix: 24,
        is_relayed: false,
        router: None,
        routes: Vec::new(),
        dns: vec![],
        ntp: vec![],
        domain: None,
        mtu: None,
        vlan: None,
        storage: None,
        nbd: vec![SocketAddrV4::new(server, 10809)],
        kernel_args: "".parse().unwrap(),
        foreign_dhcp: false,
        own_dhcp: false,
        ram: Default::default(),
        zram: None,
        strangers: model::Strangers::Wait,
        menu_password: None,
    };
    Options { init: None, init_arm64: None, network: Some(network), ..Options::under(root) }
}

fn add_image(root: &Path, name: &str, version: u32) {
    let folder = options(root).images.join(name).join(version.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    let about = format!(
        "image = \"{name}\"\nversion = {version}\ndigest = \"00\"\nsize_bytes = 4096\n\
         file_system = \"ext4\"\nkernel_version = \"6.1.0\"\nimported_unix = 0\n"
    );
    std::fs::write(folder.join("image.toml"), about).unwrap();
}

/// Adds the files that a version has beside its description.
fn add_files(root: &Path, name: &str, version: u32) {
    let folder = options(root).images.join(name).join(version.to_string());
    // What the header of a kernel must have: sectors of setup code, magic number, version 2.3.
    let mut kernel = [0; 1024];
    kernel[0x1f1] = 1;
    kernel[0x202..0x208].copy_from_slice(b"HdrS\x03\x02");
    std::fs::write(folder.join("vmlinuz"), kernel).unwrap();
    std::fs::write(folder.join("disk.raw"), [0; 4096]).unwrap();
}

/// Pretends that the initrds are built.
fn pretend_initrds(service: &Service) {
    for version in &service.site().images {
        let ready = InitrdState::Ready { path: "/dev/null".into(), size_bytes: 0 };
        let recipe = Recipe {
            image: version.image.clone(),
            version: version.version,
            roots: [RootKind::Nfs].into(),
            fit: None,
            overlay: None,
        };
        service.initrds().shelf().put(recipe, ready);
    }
}

/// What makes a machine of a PC.
fn adoption(mac: Mac, image: Option<ImageName>) -> MachineChange {
    let image = image.map(|image| Some(image.into()));
    MachineChange { mac: Some(mac), image, ..MachineChange::default() }
}

async fn adopt(
    service: &Service,
    mac: Mac,
    name: MachineName,
    image: Option<ImageName>,
) -> Result<Machine, Error> {
    service.add_machine(name, adoption(mac, image)).await
}

async fn lease(service: &Service, mac: Mac, address: Ipv4Addr) {
    let lease = Lease { mac, address, expires_unix: u64::MAX >> 1, host_name: None };
    service.commit_lease(lease).await.unwrap();
}

async fn reached(service: &Service, stage: Stage) {
    service.stage(MAC, None, NewStage::noticed(stage, "")).await.unwrap();
}

/// What the PC's screen shows while it waits; empty if it boots.
async fn screen(service: &Service) -> String {
    service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await.waiting.unwrap_or_default()
}
