//! What a machine that runs our loader gets: the heart of the boot path.

use super::memory_test::memory_test;
use super::stages::{NewStage, Prepared};
use crate::initrds::{InitrdState, WITH_DISKS};
use crate::service::Service;
use crate::storage_client;
use crate::store::{LastBoot, View};
use model::{
    BootChoice, BootId, BootPlan, ExportOrder, ExportSpec, Fetch, Firmware, ImageChoice, ImageName,
    LoaderAsk, MEMORY_TEST, Machine, MachineName, Network, OWN_DISK, Plan, RootKind, ShownMenu,
    Site, Stage, StoragePath, Strangers, Waiting, WriteMode, grub_waits, ipxe_waits, loader_script,
    plan,
};
use std::net::Ipv4Addr;
use wire::Mac;

/// The answer to a PC that asks for [`model::MACHINE_PATH`], or for its menu, or for what was chosen there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderConfig {
    /// GRUB's configuration, or iPXE's script.
    pub text: String,
    /// The NIC that asked, if its address is leased.
    pub mac: Option<Mac>,
    /// The boot, if it boots.
    pub boot: Option<BootId>,
    /// Why it waits, if it does.
    pub waiting: Option<String>,
}

impl Service {
    /// Renders GRUB's configuration for the PC with this address, and prepares its disk.
    ///
    /// Whatever is wrong, the text shows it on the PC's screen and lets it ask again. Waits for the
    /// storage server, at most 5 seconds.
    pub async fn loader_config(&self, address: Ipv4Addr, ask: &LoaderAsk) -> LoaderConfig {
        self.loader_config_for(address, ask, Fetch::Itself).await
    }

    /// The same as a script for iPXE.
    pub async fn loader_config_by_ipxe(&self, address: Ipv4Addr, ask: &LoaderAsk) -> LoaderConfig {
        self.loader_config_for(address, ask, Fetch::ByIpxe).await
    }

    /// The same by HTTP, for a PC that was started by UEFI HTTP Boot and is in its loader: nobody else asks for it that way.
    pub async fn loader_config_by_http(
        &self,
        address: Ipv4Addr,
        ask: &LoaderAsk,
    ) -> Option<LoaderConfig> {
        let mac = self.owner_of(address)?;
        let boot = self.boot_of(mac)?;
        let is_in_loader = boot.stages.iter().all(|event| event.stage < Stage::Start);
        let heard = || self.firmware_heard().has(mac, self.now().moment, Firmware::is_http);
        let may = is_in_loader && (boot.firmware.is_http() || heard());
        if !may {
            return None;
        }
        Some(self.loader_config_for(address, ask, Fetch::ByFirmware).await)
    }

    async fn loader_config_for(
        &self,
        address: Ipv4Addr,
        ask: &LoaderAsk,
        fetch: Fetch,
    ) -> LoaderConfig {
        let Some(network) = self.options().network_at(address) else {
            let why = "this boot server has no boot network: set [network] in bootlace.toml";
            return LoaderConfig {
                text: match fetch {
                    Fetch::ByIpxe => ipxe_waits(why),
                    Fetch::Itself | Fetch::ByFirmware => grub_waits(why),
                },
                mac: None,
                boot: None,
                waiting: Some(why.to_owned()),
            };
        };
        let mac = self.owner_of(address);
        let decided = match mac {
            Some(mac) => self.decide(network, mac, address, ask).await,
            None if network.foreign_dhcp => Err(Waiting::NotReady(format!(
                "no PC is known at {address}: switch this PC off and on"
            ))),
            None => Err(Waiting::NotReady(format!(
                "{address} is not leased by this boot server: another DHCP server answers on this \
                 network; switch it off, and this PC off and on"
            ))),
        };
        let (plan, boot, waiting) = match decided {
            Ok((plan, boot)) => {
                let waiting = match &plan {
                    Plan::LeaveStranger(why) => Some(why.to_string()),
                    _ => None,
                };
                (plan, boot, waiting)
            }
            Err(why) => {
                let text = why.to_string();
                // Commands work as the screen shows them.
                let shown = self.options().commands.complete(&text);
                (Plan::Wait(Waiting::NotReady(shown)), None, Some(text))
            }
        };
        match (mac, &waiting) {
            (Some(mac), Some(why)) => {
                if self.waits_in_loader(mac, why) {
                    tracing::info!(%mac, why, "waits");
                }
            }
            (Some(mac), None) => self.waits().clear(mac),
            (None, _) => {}
        }
        LoaderConfig { text: loader_script(&plan, network, fetch), mac, boot, waiting }
    }

    /// What is shown to a PC at this address that says that it has another NIC than it has, which is seen by what `but` says.
    pub fn loader_is_mistaken(
        &self,
        address: Ipv4Addr,
        says: Mac,
        but: &str,
        fetch: Fetch,
    ) -> String {
        let why = format!("this PC says that its network card is {says}, but {but}");
        tracing::warn!(%address, mac = %says, why, "refused");
        match self.options().network_at(address) {
            Some(network) => loader_script(&Plan::Wait(Waiting::NotReady(why)), network, fetch),
            None => String::new(),
        }
    }

    /// What the PC with this NIC does that asks so.
    async fn decide(
        &self,
        network: &Network,
        mac: Mac,
        address: Ipv4Addr,
        ask: &LoaderAsk,
    ) -> Result<(Plan, Option<BootId>), Waiting> {
        let site = self.site();
        let Some(machine) = site.machine_by_mac(mac) else {
            let why = Waiting::UnknownMachine(mac);
            if network.strangers == Strangers::Wait {
                return Err(why);
            }
            self.note_what_starts(mac, OWN_DISK).await;
            return Ok((Plan::LeaveStranger(why), None));
        };
        let machine = &*machine.as_it_boots();
        let choice = match ask {
            LoaderAsk::Chosen(choice) => {
                if !machine.menu.offers(choice) {
                    return Err(Waiting::NotReady(format!(
                        "{choice} is not in the menu of {}: switch this PC off and on",
                        machine.name
                    )));
                }
                choice.clone()
            }
            LoaderAsk::Start | LoaderAsk::Machine | LoaderAsk::Menu => {
                match self.once(mac, machine).await? {
                    Some(choice) => choice,
                    None if machine.menu.items().len() == 1 => machine.menu.first().clone(),
                    None if *ask != LoaderAsk::Menu => return Ok((Plan::ShowMenu, None)),
                    None => {
                        let image = machine.image.as_ref().map(ToString::to_string);
                        let image = image.unwrap_or_else(|| "The image of this PC".to_owned());
                        let menu = machine.menu.clone();
                        return Ok((Plan::Menu(ShownMenu { menu, image }), None));
                    }
                }
            }
        };
        let other = match choice {
            BootChoice::Image => None,
            BootChoice::OtherImage(image) => Some(image),
            BootChoice::LocalDisk => {
                self.note_what_starts(mac, OWN_DISK).await;
                return Ok((Plan::LocalDisk, None));
            }
            BootChoice::MemoryTest => {
                let platform = match self.boot_of(mac).map(|boot| boot.firmware) {
                    Some(Firmware::UefiX64 | Firmware::UefiX64Http) => "x86_64-efi",
                    Some(Firmware::UefiArm64 | Firmware::UefiArm64Http) => {
                        return Err(Waiting::NotReady(format!(
                            "{} is to test its memory, and there is no memory test for arm64: choose something else",
                            machine.name
                        )));
                    }
                    Some(Firmware::Bios | Firmware::Other(_)) | None => "i386-pc",
                };
                if memory_test(platform).is_none() {
                    return Err(Waiting::NotReady(format!(
                        "{} is to test its memory, and this boot server has no memory test: install the Debian package \
                         memtest86+, or choose something else",
                        machine.name
                    )));
                }
                self.note_what_starts(mac, MEMORY_TEST).await;
                return Ok((Plan::MemoryTest, None));
            }
        };
        let (boot, plan) = self.prepare(network, mac, address, other).await?;
        Ok((Plan::Boot(plan), Some(boot)))
    }

    /// What the machine was to start once, if this is that time.
    async fn once(&self, mac: Mac, machine: &Machine) -> Result<Option<BootChoice>, Waiting> {
        let view = self.view();
        let last = view.boots.get(&mac).filter(|last| last.boot.mac == mac);
        if let Some(choice) = last.and_then(|last| last.choice.as_ref()) {
            return Ok(Some(choice.clone()));
        }
        // Who has chosen already asks again and again, and what is ordered is for the boot after this one.
        let has_chosen =
            |last: &LastBoot| last.boot.stages.iter().any(|event| event.stage >= Stage::Config);
        let Some(last) = last.filter(|last| machine.next_boot.is_some() && !has_chosen(last))
        else {
            return Ok(None);
        };
        if self.runs_in_earlier_boot(mac, last.boot.id).await {
            return Err(Waiting::NotReady(format!(
                "{} is to start something once, but its system still runs, or may: this PC waits until that is off",
                machine.name
            )));
        }
        let name = machine.name.clone();
        let begun = self.database().write(move |tables| Ok(tables.begin_next_boot(mac, &name)?));
        begun.await.map_err(|error| not_ready(&machine.name, &error))
    }

    /// A PC starts something of which nothing more is heard.
    async fn note_what_starts(&self, mac: Mac, what: &str) {
        let noted = self.stage(mac, None, NewStage::noticed(Stage::Config, what)).await;
        if let Err(error) = noted {
            tracing::warn!(%mac, what, error = error.chain(), "what a PC starts could not be noted");
        }
    }

    async fn prepare(
        &self,
        network: &Network,
        mac: Mac,
        address: Ipv4Addr,
        other: Option<ImageChoice>,
    ) -> Result<(BootId, Box<BootPlan>), Waiting> {
        let mut site = self.site();
        let resets = |machine: &&Machine| machine.reset_disk && !machine.root.is_foreign();
        if let Some(machine) = site.machine_by_mac(mac).filter(resets) {
            // Its last boot may have done that while this server was away.
            self.refresh_exports().await;
            self.note_exports().await;
            let settled = self.settle_reset(machine).await;
            settled.map_err(|error| not_ready(&machine.name, &error))?;
            site = self.site();
        }
        let mut boot = plan(&site, network, (mac, address), 0, other.as_ref())?;
        boot = self.stay_on_version(&site, boot).await?;
        self.check_further_disks(&site, &boot.machine).await.map_err(|why| {
            Waiting::NotReady(format!("{} can't start yet: {why}", boot.machine.name))
        })?;
        if let Some(is) = self.boot_of(mac).and_then(|boot| boot.firmware.architecture()) {
            // It may be somebody else's word.
            let fits = |kind: Firmware| kind.architecture() == Some(boot.image.architecture);
            if !self.firmware_heard().has(mac, self.now().moment, fits) {
                boot = boot.for_architecture(is)?;
            }
        }
        self.check_initrd(&boot)?;
        if boot.config.capture.is_some() {
            self.check_initrd_with_disks(&boot)?;
        }
        let machine = &boot.machine;
        let not_ready = |error: &dyn std::error::Error| not_ready(&machine.name, error);
        let prepared =
            self.prepare_boot(mac, machine.name.clone(), boot.image.clone(), machine.root).await;
        let (id, is_configured) = match prepared.map_err(|error| not_ready(&error))? {
            Prepared::Boot(id, is_configured) => (id, is_configured),
            Prepared::NeverStarted => {
                return Err(Waiting::NotReady(format!(
                    "{} asks for its configuration, but its firmware never asked this server for an \
                     address: switch it off and on",
                    machine.name
                )));
            }
            Prepared::Running(former) => {
                let what = former.image.map_or_else(String::new, |(image, version)| {
                    format!(" {image} version {version}")
                });
                return Err(Waiting::NotReady(format!(
                    "{} still runs{what}, and has been given something else since: switch it off and on",
                    machine.name
                )));
            }
        };
        let fitted = match boot.config.capture {
            Some(_) => Some(WITH_DISKS.to_owned()),
            None => {
                let fitted = self.fitted_initrd(&boot, id, is_configured).await;
                fitted.map_err(|error| not_ready(&error))?
            }
        };
        // A foreign server has prepared its root itself.
        if !machine.root.is_foreign() {
            self.prepare_disk(&boot, id, is_configured, address).await?;
        }
        if !is_configured {
            let initrd = match (&boot.config.capture, &fitted) {
                (Some(_), _) => ", to send what is on its own disks",
                (None, Some(_)) => ", initrd for its hardware",
                (None, None) => "",
            };
            let (image, version) = (&boot.image.image, boot.image.version);
            let detail = format!("{image} version {version}, {}{initrd}", machine.root);
            let event = NewStage::noticed(Stage::Config, detail);
            self.stage(mac, Some(id), event).await.map_err(|error| not_ready(&error))?;
        }
        boot.config.boot = id;
        boot.fitted = fitted;
        boot.has_rescue = self.view().boot(mac, id).is_some_and(|known| known.rescue.is_some());
        Ok((id, boot))
    }

    /// Has the storage server export the machine's disk for this boot.
    async fn prepare_disk(
        &self,
        boot: &BootPlan,
        id: BootId,
        is_configured: bool,
        address: Ipv4Addr,
    ) -> Result<(), Waiting> {
        let machine = &boot.machine;
        let not_ready = |error: &dyn std::error::Error| not_ready(&machine.name, error);
        self.delete_left_disk(&machine.name).await.map_err(|error| not_ready(&error))?;
        if machine.reset_disk && !is_configured {
            // The storage server does it when the boot gets the disk: now a system may run on it.
            let wanted = self.database().write(move |tables| Ok(tables.want_disk_reset(id)?));
            wanted.await.map_err(|error| not_ready(&error))?;
        }
        let view = self.view();
        let Some(known) = view.boot(boot.config.mac, id) else {
            return Err(Waiting::NotReady(format!(
                "{} has begun another boot since",
                machine.name
            )));
        };
        let version = (&boot.image.image, boot.image.version);
        let nic = (boot.config.mac, address);
        let order = self.export_order(&view, machine, version, machine.root, known, nic);
        let order = self.with_reset(order, machine).await.map_err(|error| not_ready(&error))?;
        let proof = known.proof;
        let order = self.with_keys(order, machine, &known.boot, proof.token, proof.mix).await;
        let order = order.map_err(|error| not_ready(&error))?;
        storage_client::put_export(&self.options().storage_socket, &order)
            .await
            .map(drop)
            .map_err(|error| not_ready(&error))
    }

    /// A machine that keeps its disk boots the version that the disk was made on, as long as that is
    /// there. Of another image it gets nothing: the storage server says why.
    pub(crate) async fn stay_on_version(
        &self,
        site: &Site,
        boot: Box<BootPlan>,
    ) -> Result<Box<BootPlan>, Waiting> {
        let machine = &boot.machine;
        let keeps = machine.write_mode == WriteMode::Persistent && !machine.root.is_foreign();
        if !keeps || machine.reset_disk {
            return Ok(boot);
        }
        let name = &boot.machine.name;
        self.delete_left_disk(name).await.map_err(|error| not_ready(name, &error))?;
        let kept = storage_client::kept_disk(&self.options().storage_socket, name)
            .await
            .map_err(|error| not_ready(name, &error))?;
        let Some(kept) = kept.filter(|kept| kept.image == boot.image.image) else {
            return Ok(boot);
        };
        match site.version(&kept.image, kept.version) {
            Some(version) => Ok(Box::new(boot.on_version(version))),
            None => Err(Waiting::NotReady(format!(
                "{name} can't start yet: its disk was made on {} version {}, which is not among the images any more. Put \
                 that version back; to begin a new disk, bootlace machine reset {name}",
                kept.image, kept.version
            ))),
        }
    }

    /// What the storage server is told about the disk of a machine in one boot, which came from this NIC, but for its keys.
    pub(super) fn export_order(
        &self,
        view: &View,
        machine: &Machine,
        (image, version): (&ImageName, u32),
        root: RootKind,
        known: &LastBoot,
        (mac, address): (Mac, Ipv4Addr),
    ) -> ExportOrder {
        let spec = ExportSpec {
            disk: machine.name.clone().into(),
            image: image.clone(),
            version,
            write_mode: machine.write_mode,
            boot: known.boot.id,
            root,
            address,
            mac,
            shelf_slot: machine.shelf_slot,
        };
        let storage = self.options().network_at(address).and_then(|network| network.storage);
        ExportOrder {
            reset: view.disk_resets.contains(&known.boot.id),
            identity: known.identity,
            has_disk: view.kept_disks.contains(&machine.name),
            owner: match machine.write_mode {
                WriteMode::Persistent => view.as_owner(machine),
                WriteMode::Discard | WriteMode::Ram => None,
            },
            storage_path: storage.map(|storage| StoragePath {
                address: Some(storage.address_of(address)),
                cards: machine.macs().filter(|card| *card != mac).collect(),
            }),
            ..ExportOrder::new(spec)
        }
    }

    /// The initrd with drivers of disks must be there: without them nothing would be found.
    fn check_initrd_with_disks(&self, boot: &BootPlan) -> Result<(), Waiting> {
        let (image, version) = (&boot.image.image, boot.image.version);
        let recipe = self.initrds().fitted(&boot.image, WITH_DISKS);
        let why = match self.initrds().shelf().state(&recipe) {
            InitrdState::Ready { path, .. } if path.exists() => return Ok(()),
            InitrdState::Failed(why) => why,
            InitrdState::Missing | InitrdState::Building | InitrdState::Ready { .. } => {
                self.initrds().look_again();
                "it is being built; that takes seconds".to_owned()
            }
        };
        Err(Waiting::NotReady(format!(
            "{image} version {version} has no initrd by which a PC can be captured: {why}"
        )))
    }

    fn check_initrd(&self, boot: &BootPlan) -> Result<(), Waiting> {
        let (image, version) = (&boot.image.image, boot.image.version);
        match self.initrd_state(image, version) {
            InitrdState::Ready { path, .. } if path.exists() => Ok(()),
            // Ready, but gone: somebody has emptied the cache.
            InitrdState::Missing | InitrdState::Building | InitrdState::Ready { .. } => {
                let recipe = self.initrds().for_all(&self.site(), image, version);
                self.initrds().want(recipe);
                Err(Waiting::NotReady(format!(
                    "the initrd of {image} version {version} is being built; that takes seconds"
                )))
            }
            InitrdState::Failed(why) => {
                Err(Waiting::NotReady(format!("{image} version {version} has no initrd: {why}")))
            }
        }
    }
}

fn not_ready(machine: &MachineName, error: &dyn std::error::Error) -> Waiting {
    Waiting::NotReady(format!("{machine} can't start yet: {}", wire::error_chain(error)))
}
