//! What whoever may look is shown.

use super::discovered::Discovered;
use super::images::DamagedVersion;
use super::kept_disks::WrittenDisk;
use super::machine_view::MachineView;
use super::preview::Preview;
use super::rooms::RoomView;
use super::site_status::Status;
use crate::clock::Now;
use crate::error::Error;
use crate::initrds::{InitrdFile, InitrdState};
use crate::live::{AlertCount, Certificate, FindingCount, StageTimes, Traffic};
use crate::people::Viewer;
use crate::store::{Hardware, KernelLog};
use model::{
    Boot, DiskId, Finding, ImageName, MachineName, Right, RoomName, Site, SnapshotList, Stage,
};
use std::sync::Arc;
use wire::Mac;

impl Viewer {
    /// What time it is.
    pub fn now(&self) -> Now {
        self.service().now()
    }

    /// Machines and images as they are now.
    pub fn site(&self) -> Arc<Site> {
        self.service().site()
    }

    /// All machines with their states, by name. Passwords of rescue shells are shown to administrators only. Asks the storage server if
    /// that was not done just now.
    pub async fn machines(&self) -> Vec<MachineView> {
        self.service().look_at_exports().await;
        let mut machines = self.service().machines();
        machines.iter_mut().for_each(|view| self.hide_secrets(view));
        machines
    }

    /// The machine of this name. The password of its rescue shell is shown to administrators only. Asks the storage server if that
    /// was not done just now.
    ///
    /// # Errors
    /// There is none.
    pub async fn machine(&self, name: &MachineName) -> Result<MachineView, Error> {
        self.service().look_at_exports().await;
        let mut view = self.service().machine(name)?;
        self.hide_secrets(&mut view);
        Ok(view)
    }

    fn hide_secrets(&self, view: &mut MachineView) {
        if self.actor().right() < Right::Admin
            && let Some(rescue) = &mut view.rescue
        {
            rescue.password = None;
        }
    }

    /// What a machine's loader would get now; `None`: this process has no boot network.
    ///
    /// # Errors
    /// There is no such machine.
    pub async fn preview(&self, name: &MachineName) -> Result<Option<Preview>, Error> {
        self.service().preview(name).await
    }

    /// The last boots of the PC with this NIC, the last first.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn boots_of(&self, mac: Mac, n_boots: u32) -> Result<Vec<Boot>, Error> {
        self.service().boots_of(mac, n_boots).await
    }

    /// The disk that the machine keeps, or should have; `None` if it keeps none. Asks the storage server.
    ///
    /// # Errors
    /// There is no such machine.
    pub async fn written_disk(&self, name: &MachineName) -> Result<Option<WrittenDisk>, Error> {
        self.service().written_disk(name).await
    }

    /// Snapshots of the machine's disk; none if it keeps no disk. Asks the storage server.
    ///
    /// # Errors
    /// There is no such machine, or the storage server does not tell.
    pub async fn snapshots(&self, disk: &DiskId) -> Result<SnapshotList, Error> {
        self.service().snapshots(disk).await
    }

    /// What a machine is made of; `None`: it has not told.
    ///
    /// # Errors
    /// There is no such machine.
    pub fn hardware(&self, name: &MachineName) -> Result<Option<Arc<Hardware>>, Error> {
        self.service().hardware(name)
    }

    /// The kernel log of a machine's last failed boot.
    ///
    /// # Errors
    /// There is no such machine, or the log can't be read.
    pub async fn kernel_log(&self, name: &MachineName) -> Result<Option<KernelLog>, Error> {
        self.service().kernel_log(name).await
    }

    /// The site at a glance.
    pub async fn status(&self) -> Status {
        self.service().status().await
    }

    /// What a person should know now, the worst first.
    pub async fn findings(&self) -> Vec<Finding> {
        self.service().findings().await
    }

    /// How often what was found, all kinds.
    pub fn finding_counts(&self) -> Vec<FindingCount> {
        self.service().finding_counts()
    }

    /// What was sent and refused since the server started.
    pub fn traffic(&self) -> &Traffic {
        self.service().traffic()
    }

    /// How many alerts went by each way.
    pub fn alert_counts(&self) -> Vec<AlertCount> {
        self.service().alert_counts()
    }

    /// How long stages of boots took since the server started, each from the one before it.
    pub fn stage_times(&self) -> Vec<(Stage, StageTimes)> {
        self.service().stage_times()
    }

    /// How long boots took since the server started.
    pub fn whole_boot_times(&self) -> StageTimes {
        self.service().whole_boot_times()
    }

    /// PCs that asked for a loader and are no machines, the last first.
    pub fn discovered(&self) -> Vec<Discovered> {
        self.service().discovered()
    }

    /// How many of those there are.
    pub fn n_discovered(&self) -> usize {
        self.service().n_discovered()
    }

    /// All rooms, by name.
    pub fn rooms(&self) -> Vec<RoomView> {
        self.service().rooms()
    }

    /// The room of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn room(&self, name: &RoomName) -> Result<RoomView, Error> {
        self.service().room(name)
    }

    /// How far the initrd of an image version is.
    pub fn initrd_state(&self, image: &ImageName, version: u32) -> InitrdState {
        self.service().initrd_state(image, version)
    }

    /// Initrds in the cache, and image versions without one; sorted by image and version.
    ///
    /// # Errors
    /// The folder or `bootlace-init` can't be read.
    pub async fn initrd_files(&self) -> Result<Vec<InitrdFile>, Error> {
        self.service().initrd_files().await
    }

    /// What was left out of the initrd of a version, and why.
    pub async fn initrd_warnings(&self, image: &ImageName, version: u32) -> Vec<String> {
        self.service().initrd_warnings(image, version).await
    }

    /// Whether the storage server may still have the disk of a removed machine of this name. Never waits.
    pub fn has_left_disk(&self, machine: &MachineName) -> bool {
        self.service().has_left_disk(machine)
    }

    /// Image versions with which machines can't start, and why; also those that are so damaged that they are no versions
    /// any more.
    pub async fn damaged_images(&self) -> Vec<DamagedVersion> {
        self.service().damaged_images().await
    }

    /// What is wrong with the files of an image version; `None`: nothing that their names and sizes show, or that was found
    /// when all of them was read last.
    pub fn version_trouble(&self, image: &ImageName, version: u32) -> Option<DamagedVersion> {
        self.service().version_trouble(image, version)
    }

    /// Whether machines attach NBD roots over TLS.
    pub fn has_nbd_tls(&self) -> bool {
        self.service().options().nbd_ca.is_some()
    }

    /// Certificates of this site, as they were seen last.
    pub fn certificates(&self) -> Vec<Certificate> {
        self.service().certificates()
    }

    /// Whether machines get initrds made for their hardware.
    pub fn fits_initrds(&self) -> bool {
        self.service().options().fitted_initrds
    }

    /// What people wanted to remember about a version.
    pub async fn image_note(&self, image: ImageName, version: u32) -> Option<String> {
        self.service().image_note(image, version).await
    }
}
