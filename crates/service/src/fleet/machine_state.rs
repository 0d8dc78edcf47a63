//! The one word for what a machine does now, and the sentence that explains it.

use crate::live::{Download, Life};
use crate::loader::GivenLoader;
use model::{
    Boot, ExportStatus, Loader, MEMORY_TEST, OWN_DISK, RootKind, SHIM_ARM64_FILE, SHIM_FILE,
    SIGNED_GRUB_ARM64_FILE, SIGNED_GRUB_FILE, Stage, StageEvent, last_loader_file,
};
use std::fmt;

/// A stage that takes longer hangs. Files and drivers take seconds on any hardware; a slow network
/// or a busy disk makes that half a minute.
const STAGE_MAX_MS: u64 = 60_000;

/// From the image's own init to the end of its start; first starts of big desktops take minutes.
const SYSTEM_START_MAX_MS: u64 = 300_000;

/// A PC that hangs for so long was switched off by somebody.
const GIVEN_UP_MS: u64 = 3_600_000;

/// One that vanished before its kernel spoke is not waited for as long: nothing shows that it stays on.
const FIRMWARE_GIVEN_UP_MS: u64 = 600_000;

/// What a loader was sent to of which nothing more is heard.
const STARTED_ELSE: [&str; 2] = [OWN_DISK, MEMORY_TEST];

/// So many boots in a row whose kernel said nothing are no accident.
const WORDLESS_BOOTS: u32 = 2;

/// What a machine does now, as one word.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum StateWord {
    /// Its boot failed.
    Failed,
    /// A stage of its boot takes too long.
    Stuck,
    /// It waits, mostly for something that the administrator has to do.
    Waiting,
    /// Firmware or loader fetch its files.
    Loading,
    /// Its kernel runs, its system is not up yet.
    Starting,
    /// Its system is up.
    Up,
    /// It was sent to a system on a disk of its own, of which nothing is heard.
    Local,
    /// It is switched off, as far as can be seen.
    Off,
}

impl StateWord {
    /// All words, those that need a person first.
    pub const ALL: [Self; 8] = [
        Self::Failed,
        Self::Stuck,
        Self::Waiting,
        Self::Loading,
        Self::Starting,
        Self::Up,
        Self::Local,
        Self::Off,
    ];

    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Stuck => "stuck",
            Self::Waiting => "waiting",
            Self::Loading => "loading",
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Local => "local",
            Self::Off => "off",
        }
    }

    /// Whether it will change by itself soon.
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::Waiting | Self::Loading | Self::Starting | Self::Stuck)
    }
}

impl fmt::Display for StateWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What a machine does now.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MachineState {
    /// In one word.
    pub word: StateWord,
    /// In one sentence, with what to do if there is something to do.
    pub sentence: String,
    /// Since when, milliseconds since 1970; `None` if it never started.
    pub since_unix_ms: Option<u64>,
    /// The sentence without what is this boot's alone, so that machines with the same trouble have the same.
    #[serde(skip)]
    pub cause: String,
}

/// What is seen of a machine beside its boot. The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signs<'a> {
    /// Why it waits in the loader or in its initrd.
    pub(super) waiting: Option<&'a str>,
    /// What the storage server sees of it.
    pub(super) export: Option<&'a ExportStatus>,
    /// What it says of itself.
    pub(super) life: Life,
    /// How far it is with a file, if it goes on.
    pub(super) download: Option<Download>,
    /// In so many earlier boots in a row its kernel was fetched and said nothing.
    pub(super) n_wordless: u32,
    /// What its firmware gets next time.
    pub(super) next_loader: Option<&'a GivenLoader>,
}

/// Decides what a machine does now.
pub(super) fn machine_state(
    boot: Option<&Boot>,
    signs: Signs<'_>,
    now_unix_ms: u64,
) -> MachineState {
    let Signs { waiting, export, life, download, n_wordless, next_loader } = signs;
    let Some(boot) = boot else {
        let sentence = "It has not started since it was added: switch it on, with network boot first in its boot order.";
        return MachineState {
            word: StateWord::Off,
            sentence: sentence.to_owned(),
            since_unix_ms: None,
            cause: sentence.to_owned(),
        };
    };
    let started =
        StageEvent { stage: Stage::Dhcp, at_unix_ms: boot.started_unix_ms, detail: String::new() };
    let last = boot.current().unwrap_or(&started);
    let state = |word, sentence: String| MachineState {
        word,
        cause: sentence.clone(),
        sentence,
        since_unix_ms: Some(last.at_unix_ms),
    };
    if let Some(why) = waiting.filter(|_| last.stage < Stage::Config) {
        return state(StateWord::Waiting, format!("It waits in the loader: {why}."));
    }
    if let Some(why) = waiting.filter(|_| (Stage::Start..Stage::Attach).contains(&last.stage)) {
        return state(StateWord::Waiting, format!("It can't go on yet: {why}."));
    }
    // What the storage server still has of an earlier boot says nothing about a root elsewhere.
    let export = export.filter(|_| !boot.root.is_some_and(RootKind::is_foreign));
    let lasts_ms = now_unix_ms.saturating_sub(last.at_unix_ms);
    // Its disk is in use: nothing else matters. AoE has no connections.
    let disk_closed =
        export.is_some_and(|export| export.spec.root == RootKind::Nbd && export.connections == 0);
    let disk_open = export.is_some_and(|export| export.connections > 0);
    if let Some(stall) = export.and_then(|export| export.stall.as_ref()) {
        let helps = if stall.remedy.is_empty() { "" } else { ": " };
        let over = format!("It goes on by itself when that is over{helps}{}.", stall.remedy);
        let (seconds, why) = (stall.seconds, &stall.why);
        return MachineState {
            word: StateWord::Stuck,
            sentence: format!(
                "Its writes have been waiting for {seconds} s, because {why}. {over}"
            ),
            since_unix_ms: Some(now_unix_ms.saturating_sub(seconds.saturating_mul(1000))),
            cause: format!("Its writes wait, because {why}. {over}"),
        };
    }
    if export.is_some_and(|export| export.fails_writes) {
        return state(
            StateWord::Stuck,
            "Its writes that find no room get errors, as somebody has decided: until there is room again, they are to wait, or it \
             boots again."
                .to_owned(),
        );
    }
    match last.stage {
        _ if n_wordless >= WORDLESS_BOOTS && last.stage <= Stage::Initrd => {
            let (n, title) = (n_wordless + u32::from(last.stage == Stage::Initrd), last.stage.title());
            let cause = "Boot after boot its kernel is fetched and says nothing: probably it panics before it can, or the PC \
                         restarts; look at its screen.";
            let sentence = format!("{n} boots in a row: {cause} It is booting again: {title}.");
            MachineState { cause: cause.to_owned(), ..state(StateWord::Failed, sentence) }
        }
        Stage::Failed => {
            let why = match last.detail.as_str() {
                "" => "it did not say why; look at its screen",
                detail => detail.trim_end_matches('.'),
            };
            let code = initcfg::failure_code(boot.id, boot.mac);
            let sentence = format!("Its boot failed (code {code}): {why}.");
            let cause = format!("Its boot failed: {why}.");
            MachineState { cause, ..state(StateWord::Failed, sentence) }
        }
        Stage::Up if let Some((since_ms, why)) = why_off(life, disk_open, disk_closed) => {
            let since_unix_ms = Some(since_ms.unwrap_or(last.at_unix_ms));
            MachineState { since_unix_ms, ..state(StateWord::Off, why.to_owned()) }
        }
        Stage::Up if disk_closed => state(
            StateWord::Stuck,
            "Its connection to its disk is gone. Probably it runs, and everything waits: it goes on by itself when it reaches the \
             storage server again."
                .to_owned(),
        ),
        Stage::Up => state(StateWord::Up, up_sentence(boot)),
        Stage::Handover if lasts_ms > SYSTEM_START_MAX_MS && disk_open => state(
            StateWord::Stuck,
            "It runs, but its system has not told that it is up: probably it hangs while it starts; look at its screen."
                .to_owned(),
        ),
        Stage::Handover if lasts_ms > SYSTEM_START_MAX_MS && disk_closed => {
            state(StateWord::Off, "It has closed its disk: it is probably switched off.".to_owned())
        }
        Stage::Config if boot.image.is_none() && STARTED_ELSE.contains(&last.detail.as_str()) => state(
            StateWord::Local,
            format!("It was sent to {} by its loader. Nothing is heard of it from then on.", match last.detail.as_str() {
                MEMORY_TEST => "a memory test",
                _ => OWN_DISK,
            }),
        ),
        stage
            if stage < Stage::Initrd
                && lasts_ms > STAGE_MAX_MS
                && let Some(Download { n_bytes, size_bytes, .. }) = download =>
        {
            let [has, size] = [n_bytes, size_bytes].map(|n| n as f64 / 1e6);
            let next = next_title(boot, stage);
            state(
                StateWord::Loading,
                format!(
                    "It is booting, slowly: “{next}” follows when it has {size:.1} MB, of which {has:.1} MB are on their way. If \
                     other PCs are faster, look at its cable and its switch port."
                ),
            )
        }
        stage if lasts_ms > given_up_ms(stage) => state(
            StateWord::Off,
            format!(
                "Its last boot got as far as “{}”; nothing has been heard of it since.",
                last.stage.title()
            ),
        ),
        stage => {
            let max_ms = if stage == Stage::Handover { SYSTEM_START_MAX_MS } else { STAGE_MAX_MS };
            if lasts_ms > max_ms {
                let next = next_title(boot, stage);
                return state(
                    StateWord::Stuck,
                    format!(
                        "It got as far as “{}”, and “{next}” did not follow: {}.",
                        stage.title(),
                        refused_loader(last, next_loader)
                            .unwrap_or_else(|| remedy(stage).to_owned())
                    ),
                );
            }
            let word = if stage < Stage::Start { StateWord::Loading } else { StateWord::Starting };
            state(word, format!("It is booting: {}.", stage.title()))
        }
    }
}

/// After how long a boot that hangs in this stage counts as one of a PC that is off.
const fn given_up_ms(stage: Stage) -> u64 {
    match stage {
        Stage::Dhcp | Stage::Loader | Stage::Config | Stage::Kernel | Stage::Initrd => {
            FIRMWARE_GIVEN_UP_MS
        }
        _ => GIVEN_UP_MS,
    }
}

/// Since when and why a machine that was up counts as off; `None` if it does not.
fn why_off(life: Life, disk_open: bool, disk_closed: bool) -> Option<(Option<u64>, &'static str)> {
    const SILENT: &str =
        "It gives no sign of life any more: it was probably switched off, or its cable is out.";
    match life {
        Life::SaidOff(at_ms) => Some((Some(at_ms), "It was shut down.")),
        Life::Alive => None,
        // Its disk is in use: then it can only be its words that are lost.
        Life::Silent(_) if disk_open => None,
        Life::Silent(at_ms) => Some((at_ms, SILENT)),
        Life::Unknown => {
            disk_closed.then_some((None, "It has closed its disk: it is probably switched off."))
        }
    }
}

fn up_sentence(boot: &Boot) -> String {
    let took_ms = boot.took_ms().unwrap_or_default();
    let took = format!("{}.{} s", took_ms / 1000, took_ms % 1000 / 100);
    match &boot.image {
        Some((image, version)) => {
            format!("It is up with {image} version {version}. Its start took {took}.")
        }
        None => format!("It is up. Its start took {took}."),
    }
}

fn next_title(boot: &Boot, stage: Stage) -> &'static str {
    let reached = |stage: &Stage| boot.stages.iter().any(|event| event.stage == *stage);
    Stage::ALL
        .into_iter()
        .find(|next| *next > stage && !reached(next))
        .map_or("nothing", Stage::title)
}

/// What helps when firmware has fetched the whole of a loader for UEFI, and nothing came of it.
fn refused_loader(last: &StageEvent, next: Option<&GivenLoader>) -> Option<String> {
    if last.stage != Stage::Loader {
        return None;
    }
    let file = last_loader_file(&last.detail)?;
    if [Loader::Own, Loader::OwnArm64].map(Loader::file).contains(&file) {
        let then = match next {
            Some(GivenLoader { file: Some(SHIM_FILE | SHIM_ARM64_FILE), .. }) => {
                "the next time it gets the signed one, which Secure Boot takes".to_owned()
            }
            Some(GivenLoader { rule, .. }) => format!(
                "the next time it gets no other, because {rule}; change that, or switch Secure Boot off"
            ),
            None => "switch Secure Boot off".to_owned(),
        };
        return Some(format!(
            "probably its Secure Boot has refused that loader (“Access Denied” on its screen): {then}"
        ));
    }
    let helps = match file {
        SHIM_FILE | SHIM_ARM64_FILE => {
            "probably its Secure Boot has refused the signed loader (“Access Denied” on its screen): its firmware setup must allow the \
             “Microsoft 3rd Party UEFI CA”; or switch Secure Boot off"
        }
        SIGNED_GRUB_FILE | SIGNED_GRUB_ARM64_FILE => {
            "the signed GRUB was refused by shim, as an old one is (“Verification failed” or “SBAT” on its screen), or it can't reach \
             the boot server: update the server's signed loader (grub-efi-amd64-signed and shim-signed), and start the boot server again"
        }
        _ => return None,
    };
    Some(helps.to_owned())
}

/// What usually helps when nothing follows a stage.
const fn remedy(stage: Stage) -> &'static str {
    match stage {
        Stage::Dhcp => {
            "probably it was switched off again, or starts from its own disk; or its firmware can't reach the boot server by TFTP: is \
             another DHCP server on this network, or a firewall on the server; if the boot server was restarted just then, switch the \
             PC off and on"
        }
        Stage::Loader => {
            "probably it was switched off, or the loader has no network: its firmware may hand the network card over \
             switched off; switch the PC fully off and on"
        }
        Stage::Config | Stage::Kernel => {
            "probably it was switched off, or its files did not arrive; if it is on, its loader tries again by itself, for some \
             minutes: look at the cable, and at the log of the boot server"
        }
        Stage::Initrd => {
            "probably its kernel did not start, or has no driver for its network card; look at its screen"
        }
        Stage::Start | Stage::Modules => {
            "no driver for its network card was found, or the card has no link; look at its screen"
        }
        Stage::Link | Stage::Address => {
            "it can't reach the server of its root; look at its screen, and at the log of that server"
        }
        Stage::Attach | Stage::Mount => {
            "the file system of its disk can't be mounted; look at its screen"
        }
        Stage::Handover | Stage::Up | Stage::Failed => {
            "its system hangs while it starts; look at its screen"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{ExportCounters, ExportSpec, Firmware, Stall, WriteMode};
    use wire::Mac;

    fn boot(stages: &[(Stage, u64)]) -> Boot {
        Boot {
            id: 1,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            machine: None,
            firmware: Firmware::Bios,
            started_unix_ms: 0,
            image: None,
            root: None,
            stages: stages
                .iter()
                .map(|&(stage, at_unix_ms)| StageEvent { stage, at_unix_ms, detail: String::new() })
                .collect(),
        }
    }

    fn check(stages: &[(Stage, u64)], now: u64, word: StateWord, says: &str) {
        let state = machine_state(Some(&boot(stages)), Signs::default(), now);
        assert_eq!(state.word, word, "{}", state.sentence);
        assert!(state.sentence.contains(says), "{}", state.sentence);
    }

    #[test]
    fn each_moment_of_a_boot_has_its_word() {
        check(&[], 1000, StateWord::Loading, "firmware has an address");
        check(&[(Stage::Kernel, 9000)], 10_000, StateWord::Loading, "kernel fetched");
        check(&[(Stage::Link, 9000)], 10_000, StateWord::Starting, "link up");
        check(&[(Stage::Link, 9000)], 69_000, StateWord::Starting, "link up");
        check(&[(Stage::Link, 9000)], 69_001, StateWord::Stuck, "server of its root");
        check(&[(Stage::Handover, 9000)], 309_000, StateWord::Starting, "system starts");
        check(&[(Stage::Handover, 9000)], 309_001, StateWord::Stuck, "system is up");
        check(&[(Stage::Up, 23_400)], u64::MAX, StateWord::Up, "23.4 s");
        check(&[(Stage::Failed, 9000)], 10_000, StateWord::Failed, "look at its screen");
        check(&[(Stage::Link, 9000)], 3_609_000, StateWord::Stuck, "server of its root");
        check(
            &[(Stage::Link, 9000)],
            3_609_001,
            StateWord::Off,
            "nothing has been heard of it since",
        );
    }

    #[test]
    fn a_file_that_comes_slowly_is_no_trouble() {
        let downloads = crate::live::Downloads::default();
        let (mac, at) = (Mac([2, 0, 0, 0, 0, 1]), wire::Moment::from_millis(5));
        downloads.note(mac, 3_200_000, 8_200_000, at);
        let download = downloads.get(mac, at);
        let state = |stage, after_ms: u64| {
            let boot = boot(&[(stage, 9000)]);
            machine_state(Some(&boot), Signs { download, ..Signs::default() }, 9000 + after_ms)
        };
        let slow = state(Stage::Config, 700_000);
        assert_eq!(slow.word, StateWord::Loading);
        assert!(
            slow.sentence.contains("“kernel fetched” follows when it has 8.2 MB, of which 3.2 MB"),
            "{}",
            slow.sentence
        );
        assert_eq!(state(Stage::Config, 59_000).sentence, "It is booting: configuration fetched.");
        assert_eq!(state(Stage::Initrd, 61_000).word, StateWord::Stuck, "it has all files");
    }

    #[test]
    fn a_pc_that_vanished_in_its_firmware_is_soon_off() {
        check(&[(Stage::Dhcp, 0)], 70_000, StateWord::Stuck, "probably it was switched off again");
        check(&[(Stage::Dhcp, 0)], 600_001, StateWord::Off, "nothing has been heard of it since");
        check(&[(Stage::Initrd, 0)], 600_001, StateWord::Off, "nothing has been heard of it since");
    }

    #[test]
    fn a_kernel_that_panics_boot_after_boot_is_told() {
        let state = |n_wordless, stage| {
            let boot = boot(&[(stage, 9000)]);
            machine_state(Some(&boot), Signs { n_wordless, ..Signs::default() }, 10_000)
        };
        assert_eq!(state(1, Stage::Initrd).word, StateWord::Loading);
        let third = state(2, Stage::Initrd);
        assert_eq!(third.word, StateWord::Failed);
        assert!(third.sentence.starts_with("3 boots in a row: "), "{}", third.sentence);
        assert!(state(2, Stage::Loader).sentence.starts_with("2 boots in a row: "));
        assert_eq!(state(2, Stage::Start).word, StateWord::Starting, "it has spoken");
    }

    #[test]
    fn firmware_that_refuses_a_loader_is_named_with_what_it_gets_next() {
        let signed = GivenLoader { file: Some(SHIM_FILE), rule: "a rule".to_owned() };
        let own = GivenLoader { file: Some("bl.efi"), rule: "Debian 12's can't".to_owned() };
        for (file, next, says) in [
            (
                "bl.efi",
                &signed,
                "“Access Denied” on its screen): the next time it gets the signed one",
            ),
            ("bl.efi", &own, "gets no other, because Debian 12's can't; change that, or"),
            ("shimx64.efi", &signed, "“Microsoft 3rd Party UEFI CA”"),
            ("grubx64.efi", &signed, "refused by shim"),
            ("bl-arm64.efi", &signed, "the next time it gets the signed one"),
            ("shimaa64.efi", &signed, "“Microsoft 3rd Party UEFI CA”"),
            ("grubaa64.efi", &signed, "refused by shim"),
            ("bl.0", &own, "the loader has no network"),
        ] {
            let signs = Signs { next_loader: Some(next), ..Signs::default() };
            let mut boot = boot(&[(Stage::Dhcp, 0), (Stage::Loader, 1000)]);
            boot.stages[1].detail = model::loader_detail(file, "0.8 MB by TFTP in 0.1 s");
            let state = machine_state(Some(&boot), signs, 70_000);
            assert_eq!(state.word, StateWord::Stuck);
            assert!(state.sentence.contains(says), "{file}: {}", state.sentence);
        }
    }

    #[test]
    fn machines_with_the_same_trouble_have_the_same_cause() {
        let mut boots = [boot(&[(Stage::Failed, 9000)]), boot(&[(Stage::Failed, 11_000)])];
        boots[1].id = 2;
        let [one, other] = boots.map(|boot| machine_state(Some(&boot), Signs::default(), 12_000));
        assert_ne!(one.sentence, other.sentence);
        assert_eq!(one.cause, other.cause);
    }

    #[test]
    fn a_machine_that_was_up_is_off_when_it_says_so_or_says_nothing() {
        let boot = boot(&[(Stage::Up, 9000)]);
        let check = |life: Life, word: StateWord, says: &str, since: u64| {
            let state = machine_state(Some(&boot), Signs { life, ..Signs::default() }, 1_000_000);
            assert_eq!(state.word, word, "{}", state.sentence);
            assert!(state.sentence.contains(says), "{}", state.sentence);
            assert_eq!(state.since_unix_ms, Some(since));
        };
        check(Life::Alive, StateWord::Up, "It is up", 9000);
        check(Life::Unknown, StateWord::Up, "It is up", 9000);
        check(Life::SaidOff(500_000), StateWord::Off, "shut down", 500_000);
        check(Life::Silent(Some(400_000)), StateWord::Off, "no sign of life", 400_000);
        check(Life::Silent(None), StateWord::Off, "no sign of life", 9000);
    }

    #[test]
    fn writes_that_wait_for_room_are_told() {
        let why = "the storage server's disk is full".to_owned();
        let export = ExportStatus {
            spec: ExportSpec {
                disk: "lab-07".parse().unwrap(),
                image: "debian".parse().unwrap(),
                version: 1,
                write_mode: WriteMode::Discard,
                boot: 1,
                root: RootKind::Nbd,
                address: [10, 0, 0, 7].into(),
                mac: Mac([2, 0, 0, 0, 0, 1]),
                shelf_slot: "1.0".parse().unwrap(),
            },
            identity: None,
            candidate: None,
            size_bytes: 4096,
            connections: 1,
            is_silent: None,
            servers: Vec::new(),
            idle_seconds: Some(1),
            layer_bytes: 0,
            counters: ExportCounters::default(),
            stall: Some(Stall { seconds: 12, requests: 3, why, remedy: "delete files".to_owned() }),
            fails_writes: false,
            has_lost_writes: false,
        };
        let boot = boot(&[(Stage::Up, 9000)]);
        fn of(export: &ExportStatus) -> Signs<'_> {
            Signs { export: Some(export), life: Life::Alive, ..Signs::default() }
        }
        let state = machine_state(Some(&boot), of(&export), 100_000);
        assert_eq!(state.word, StateWord::Stuck);
        assert!(state.sentence.contains("for 12 s, because the storage server's disk is full"));
        assert_eq!(state.since_unix_ms, Some(88_000), "that is 12 s ago");
        assert!(state.cause.contains("full. It goes on by itself when that is over: delete files"));
        // Somebody decides that they fail: none waits, and that is not all right.
        let failing = ExportStatus { stall: None, fails_writes: true, ..export };
        let state = machine_state(Some(&boot), of(&failing), 100_000);
        assert_eq!(state.word, StateWord::Stuck);
        assert!(state.sentence.contains("get errors, as somebody has decided"));
    }

    #[test]
    fn who_waits_is_told_why() {
        let waits = |why| Signs { waiting: Some(why), ..Signs::default() };
        let state = machine_state(Some(&boot(&[])), waits("no image"), 5);
        assert_eq!((state.word, state.sentence.contains("no image")), (StateWord::Waiting, true));
        let boot = boot(&[(Stage::Address, 9000)]);
        let state = machine_state(Some(&boot), waits("no answer"), 90_000);
        assert_eq!(state.sentence, "It can't go on yet: no answer.");
        assert_eq!(machine_state(None, Signs::default(), 5).word, StateWord::Off);
    }
}
