//! QEMU PCs without a disk boot over the network to a login prompt, served by `bootlace up`.

use crate::files;
use anyhow::{Context, Result, ensure};
use lab::{
    Console, Daemon, Firmware, Lan, Need, Pc, PcSlots, Recipe, Site, StageLine, marked_copy,
    require,
};
use std::path::Path;
use std::time::{Duration, Instant};

/// From power-on to the prompt. Half a minute to a minute alone; tests run side by side, without KVM, on machines
/// that others use too.
pub(crate) const BOOT: Duration = Duration::from_secs(600);

/// From `poweroff` or `reboot` to the end of the system. systemd gives hanging services 90 s.
pub(crate) const SHUTDOWN: Duration = Duration::from_secs(60);

/// One command on the console.
pub(crate) const COMMAND: Duration = Duration::from_secs(60);

/// A system that is at its prompt at once, where it does not matter which one boots.
pub(crate) const QUICK: Recipe = Recipe::BUSYBOX;

pub(crate) const MAC: &str = "52:54:00:00:00:01";
pub(crate) const OTHER_MAC: &str = "52:54:00:00:00:02";

/// A running site with one image, `debian`. Fields are dropped in this order.
struct Room {
    servers: Daemon,
    site: Site,
    image: std::path::PathBuf,
    _slot: PcSlots,
}

/// Whether this machine can boot PCs.
pub(crate) fn can_boot(name: &str) -> bool {
    let needs = [
        Need::Root,
        Need::SlowTests,
        Need::Program("qemu-system-x86_64"),
        Need::Program("mmdebstrap"),
        Need::Program("grub-mkimage"),
    ];
    require(name, &needs)
}

/// Runs the test in a room of its own with an image by this recipe, unless this machine can't.
fn in_a_room(name: &str, recipe: &Recipe, test: impl FnOnce(&mut Room) -> Result<()>) {
    if !can_boot(name) {
        return;
    }
    let mut room =
        Room::set_up(name, recipe).unwrap_or_else(|error| panic!("no room for {name}: {error:#}"));
    if let Err(error) = test(&mut room) {
        // The servers' log follows, when the room is dropped.
        panic!("{error:#}");
    }
    room.servers.stop().expect("the servers stop when they are asked to");
}

impl Room {
    fn set_up(name: &str, recipe: &Recipe) -> Result<Self> {
        let _slot = PcSlots::take(1)?;
        let image = recipe.image(|text| eprintln!("{text}"))?;
        // Our own loader, also where the signed one is installed.
        let site = Site::builder().boot("secure_boot = \"never\"").create(Lan::lay(name)?)?;
        site.run(&["image", "import", &image.to_string_lossy(), "--name", "debian"])?;
        let servers = site.up()?;
        Ok(Self { servers, site, image, _slot })
    }

    /// Adds the machine `pc-1`.
    fn add_machine(&self, root: &str) -> Result<()> {
        let machine = ["machine", "set", "pc-1", "--mac", MAC, "--image", "debian"];
        let root = ["--root-kind", root];
        self.site.run(&[&machine[..], &root].concat()).map(drop)
    }

    fn power_on(&self, name: &str, mac: &str, firmware: Firmware) -> Result<Pc> {
        Pc::builder(name).mac(mac).firmware(firmware).start(self.site.lan())
    }
}

pub(crate) fn wait_for_login(pc: &Pc, host_name: &str) -> Result<()> {
    pc.console().wait_for(&format!("{host_name} login: "), BOOT)
}

/// The page knows that `pc-1` was shut down, since it said so.
fn says_off(site: &Site) -> Result<()> {
    let view = site.browser().json("/api/v1/machines/pc-1")?;
    let state = (view["state"]["word"].as_str(), view["state"]["sentence"].as_str());
    ensure!(state == (Some("off"), Some("It was shut down.")), "{state:?}");
    Ok(())
}

/// Stages that each boot must have reached when it is up.
const STAGES: &[&str] = &[
    "dhcp", "loader", "config", "kernel", "initrd", "start", "modules", "link", "address",
    "attach", "mount", "handover", "up",
];

#[test]
fn bios_pc_boots_over_nbd_and_forgets_what_was_written() {
    in_a_room("bios-nbd", &Recipe::default(), |room| {
        room.add_machine("nbd")?;
        let mut pc = room.power_on("pc-1", MAC, Firmware::Bios)?;
        wait_for_login(&pc, "pc-1")?;
        let stages = room.site.wait_for_stage("pc-1", "up", BOOT)?;
        let reached: Vec<&str> = stages.iter().map(|line| line.stage.as_str()).collect();
        for stage in STAGES {
            ensure!(reached.contains(stage), "the boot's time line lacks {stage}: {reached:?}");
        }
        let detail = |stage: &str| {
            let line = stages.iter().find(|line| line.stage == stage);
            line.map_or("", |line| &line.detail)
        };
        ensure!(detail("initrd").contains("by HTTP"), "{}", detail("initrd"));
        ensure!(!detail("address").contains("segment"), "{}", detail("address"));
        let view = room.site.browser().json("/api/v1/machines/pc-1")?;
        ensure!(view["is_proven"] == true, "the machine has not shown that it is itself: {view}");

        let console = pc.console().clone();
        console.log_in(COMMAND)?;
        let source = console.shell("findmnt -no SOURCE /", COMMAND)?;
        ensure!(source.starts_with("/dev/nbd0"), "the root is {source:?}");
        let id = console.shell("cat /etc/machine-id", COMMAND)?;
        ensure!(id.ends_with("525400000001"), "the machine-id is not this machine's: {id}");
        let state =
            console.shell("networkctl --no-pager status 2>&1 | head -5; ip -br addr", COMMAND)?;
        ensure!(state.contains("10.77.0.1"), "the boot NIC lost its address: {state}");
        console.shell("echo mine > /root/mine; sync; cat /root/mine", COMMAND)?;
        users_can_not_open_the_disk(&console)?;
        console.send_line("systemctl reboot")?;
        let reboot = Instant::now();

        wait_for_login(&pc, "pc-1")?;
        println!("from reboot to login: {:?}", reboot.elapsed());
        let again = room.site.stages("pc-1")?;
        ensure!(again.first().map(|line| line.boot) != stages.first().map(|line| line.boot));
        let detail = |stages: &[StageLine], stage: &str| {
            let line = stages.iter().find(|line| line.stage == stage);
            line.map_or_else(String::new, |line| line.detail.clone())
        };
        let initrd = "initrd for its hardware";
        ensure!(!detail(&stages, "config").contains(initrd), "what hardware? {stages:?}");
        ensure!(detail(&again, "config").contains(initrd), "nothing was learnt: {again:?}");
        ensure!(!detail(&again, "initrd").is_empty(), "it was not seen being fetched: {again:?}");
        println!("{} then {}", detail(&stages, "initrd"), detail(&again, "initrd"));
        console.log_in(COMMAND)?;
        let left = console.shell("ls /root/mine", COMMAND)?;
        ensure!(left.contains("No such file"), "the file outlived the reboot: {left:?}");
        console.send_line("systemctl poweroff")?;
        let power_off = Instant::now();
        pc.wait_for_off(SHUTDOWN)?;
        println!("from poweroff to off: {:?}", power_off.elapsed());
        ensure!(
            console.text().contains("bootlace: root unmounted; poweroff"),
            "{}",
            console.tail(20)
        );
        says_off(&room.site)?;
        Ok(())
    });
}

/// A user of the machine `pc-1` has its address, and can go past the file system to nothing by that.
fn users_can_not_open_the_disk(console: &Console) -> Result<()> {
    // Flags, and GO for each name, as any NBD client sends them.
    for (name, length, data) in [("pc-1", "4", "12"), ("pc-1?g=4294967295", "21", "27")] {
        let go = format!(
            "\\0\\0\\0\\3IHAVEOPT\\0\\0\\0\\7\\0\\0\\0\\{data}\\0\\0\\0\\{length}{name}\\0\\0"
        );
        let attempt = format!(
            "su -s /bin/bash nobody -c 'id -un; exec 3<>/dev/tcp/10.77.0.1/10809; printf \"{go}\" >&3; timeout 3 cat \
             <&3 | tr -cd \"[:print:]\"'; echo"
        );
        let said = console.shell(&attempt, COMMAND)?;
        ensure!(said.contains("nobody") && said.contains("the disk is not given"), "{said}");
    }
    let lost = console.shell("dmesg | grep -c 'server of the root disk lost'", COMMAND)?;
    ensure!(lost.trim() == "0", "an attempt has cut the machine's own connection");
    let backend = console.shell("cat /sys/block/nbd0/backend", COMMAND)?;
    ensure!(backend == "pc-1", "sysfs shows everybody {backend:?}");
    Ok(())
}

#[test]
fn bios_pc_boots_over_aoe_and_keeps_what_was_written() {
    in_a_room("bios-aoe", &Recipe::default(), |room| {
        room.add_machine("aoe")?;
        room.site.run(&["machine", "set", "pc-1", "--write-mode", "persistent"])?;
        files::lay(&room.site)?;
        let mut pc = room.power_on("pc-1", MAC, Firmware::Bios)?;
        wait_for_login(&pc, "pc-1")?;
        room.site.wait_for_stage("pc-1", "up", BOOT)?;
        let console = pc.console().clone();
        console.log_in(COMMAND)?;
        files::are_laid(&room.site, &console)?;
        files::change(&room.site, &console)?;
        let source = console.shell("findmnt -no SOURCE /", COMMAND)?;
        ensure!(source.starts_with("/dev/etherd/e"), "the root is {source:?}");
        // The driver of the guest's kernel reads and writes our target.
        let written = console.shell(
            "dd if=/dev/urandom of=/root/x bs=64k count=64 2>/dev/null && sync && md5sum < /root/x \
             && echo 3 > /proc/sys/vm/drop_caches && md5sum < /root/x",
            COMMAND,
        )?;
        let sums: Vec<&str> = written.lines().collect();
        ensure!(matches!(sums[..], [one, two] if one == two), "read back differs: {written}");
        let sum = sums[0].to_owned();
        room.site.run(&["machine", "snapshot", "pc-1", "--note", "with the file"])?;

        // A newer version of the image is not put under a disk that was made on this one.
        let image = room.image.to_string_lossy().into_owned();
        room.site.run(&["image", "import", &image, "--name", "debian"])?;
        console.send_line("systemctl reboot")?;
        wait_for_login(&pc, "pc-1")?;
        console.log_in(COMMAND)?;
        let kept = console.shell("md5sum < /root/x", COMMAND)?;
        ensure!(kept == sum, "the file is not what was written: {kept}, not {sum}");
        files::are_changed(&room.site, &console)?;
        goes_back_to_a_snapshot(room, &pc, &sum)?;
        // Nothing happens to the disk of a running system; its next boot starts from scratch.
        room.site.run(&["machine", "reset", "pc-1"])?;
        let kept = console.shell("echo 3 > /proc/sys/vm/drop_caches; md5sum < /root/x", COMMAND)?;
        ensure!(kept == sum, "the disk of a running machine was thrown away: {kept}");
        console.send_line("systemctl reboot")?;
        wait_for_login(&pc, "pc-1")?;
        console.log_in(COMMAND)?;
        let left = console.shell("ls /root/x", COMMAND)?;
        ensure!(left.contains("No such file"), "the file outlived the reset: {left:?}");
        console.send_line("systemctl poweroff")?;
        pc.wait_for_off(SHUTDOWN)?;
        says_off(&room.site)
    });
}

/// The machine of which the first snapshot has the file with this sum loses it, and has it again after its next boot.
fn goes_back_to_a_snapshot(room: &Room, pc: &Pc, sum: &str) -> Result<()> {
    let console = pc.console();
    console.shell("echo lost > /root/x; sync", COMMAND)?;
    let listed = room.site.run(&["machine", "files", "pc-1@1", "/root"])?;
    ensure!(listed.contains("4.2 MB"), "{listed}");
    let fetched = room.site.root().join("fetched");
    let output = fetched.to_string_lossy().into_owned();
    room.site.run(&["machine", "fetch", "pc-1@1", "/root/x", "-o", &output])?;
    let size = std::fs::metadata(&fetched)?.len();
    ensure!(size == 64 << 16, "{size} bytes were fetched");
    room.site.run(&["machine", "rollback", "pc-1", "--to", "1"])?;
    let now = console.shell("cat /root/x", COMMAND)?;
    ensure!(now == "lost", "the disk of a running machine went back: {now}");
    console.send_line("systemctl reboot")?;
    wait_for_login(pc, "pc-1")?;
    console.log_in(COMMAND)?;
    let back = console.shell("md5sum < /root/x", COMMAND)?;
    ensure!(back == sum, "the disk did not go back: {back}, not {sum}");
    let listed = room.site.run(&["machine", "snapshots", "pc-1"])?;
    ensure!(listed.contains("with the file") && listed.contains("before a rollback"), "{listed}");
    Ok(())
}

#[test]
fn uefi_pc_boots_over_nbd() {
    in_a_room("uefi-nbd", &Recipe::default(), |room| {
        room.add_machine("nbd")?;
        let mut pc = room.power_on("pc-1", MAC, Firmware::Uefi)?;
        wait_for_login(&pc, "pc-1")?;
        room.site.wait_for_stage("pc-1", "up", BOOT)?;
        let console = pc.console().clone();
        console.log_in(COMMAND)?;
        let firmware =
            console.shell("test -d /sys/firmware/efi && echo booted-by-uefi", COMMAND)?;
        ensure!(firmware == "booted-by-uefi", "{firmware:?}");
        console.send_line("systemctl poweroff")?;
        pc.wait_for_off(SHUTDOWN)
    });
}

#[test]
fn an_image_chosen_on_the_web_page_is_what_runs_after_the_next_reboot() {
    in_a_room("other-image", &QUICK, |room| {
        let second = room.site.root().join("second.raw");
        marked_copy(&room.image, &second, "The second image")?;
        room.site.run(&["image", "import", &second.to_string_lossy(), "--name", "second"])?;
        std::fs::remove_file(&second)?;
        room.add_machine("nbd")?;
        let pc = room.power_on("pc-1", MAC, Firmware::Bios)?;
        pc.console().wait_for("Bootlace demo", BOOT)?;
        wait_for_login(&pc, "pc-1")?;

        let browser = room.site.browser();
        let fields = [("image", "second"), ("root", "nbd"), ("write_mode", "discard")];
        let answer = browser.post("/machines/pc-1", &fields)?;
        ensure!(answer.status == 303, "the form was refused: {answer:?}");
        let page = browser.get("/machines/pc-1")?;
        ensure!(page.status == 200 && page.body.contains("second"), "{page:?}");
        // A running machine keeps what it booted.
        pc.console().log_in(COMMAND)?;
        let issue =
            pc.console().shell("cat /etc/issue; dd if=/usr/bin/bash of=/dev/null", COMMAND)?;
        ensure!(issue.contains("Bootlace demo"), "{issue:?}");

        pc.console().send_line("reboot")?;
        pc.console().wait_for("The second image", BOOT)?;
        wait_for_login(&pc, "pc-1")?;
        let view = browser.json("/api/v1/machines/pc-1")?;
        ensure!(view["boot"]["image"][0] == "second", "{view}");
        Ok(())
    });
}

#[test]
fn an_unknown_pc_shows_up_gets_nothing_of_others_and_boots_once_adopted() {
    in_a_room("unknown", &QUICK, |room| {
        // Another machine's disk is there to be taken.
        room.add_machine("nbd")?;
        let owner = room.power_on("pc-1", MAC, Firmware::Bios)?;
        room.site.wait_for_stage("pc-1", "attach", BOOT)?;
        refuse_strangers(&room.site)?;
        drop(owner);

        let mut pc = room.power_on("new", OTHER_MAC, Firmware::Bios)?;
        let console = pc.console().clone();
        console.wait_for("is not in the machine list", BOOT)?;
        let browser = room.site.browser();
        let page = browser.get("/discovered")?;
        ensure!(page.body.contains(OTHER_MAC), "{}", page.body);
        ensure!(!page.body.contains(MAC), "a known machine counts as discovered: {}", page.body);
        // It asks again, and gets no more.
        console.wait_for("is not in the machine list", COMMAND)?;
        ensure!(!console.text().contains("Linux version"), "it booted something");

        let fields = [("name", "new-pc"), ("image", "debian"), ("root", "nbd")];
        let path = format!("/discovered/{OTHER_MAC}/adopt");
        let answer = browser.post(&path, &fields)?;
        ensure!(answer.status == 303, "the form was refused: {answer:?}");
        // Nobody touches the PC.
        wait_for_login(&pc, "new-pc")?;
        ensure!(!browser.get("/discovered")?.body.contains(OTHER_MAC));
        console.log_in(COMMAND)?;
        console.send_line("poweroff")?;
        pc.wait_for_off(SHUTDOWN)
    });
}

/// Another client on the LAN neither sees nor opens the disk of `pc-1`.
fn refuse_strangers(site: &Site) -> Result<()> {
    let stranger = site.lan().add_client("stranger", "52:54:00:00:00:66")?;
    stranger.netns().ip("addr add 10.77.0.66/24 dev eth0")?;
    let export = format!("nbd://{}/pc-1", lab::SERVER);
    for arguments in [["--size", export.as_str()], ["--list", "nbd://10.77.0.1"]] {
        let output = stranger
            .command(Path::new("nbdinfo"))
            .args(arguments)
            .output()
            .context("can't start nbdinfo")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(!text.contains("pc-1"), "a stranger sees the export: {text}");
        let complaint = String::from_utf8_lossy(&output.stderr);
        println!("nbdinfo {}: {} {text} {complaint}", arguments[0], output.status);
        ensure!(!complaint.contains("refused"), "the storage server is not there: {complaint}");
        let opened = output.status.success() && arguments[0] == "--size";
        ensure!(!opened, "a stranger opened the export of pc-1: {text}");
    }
    Ok(())
}
