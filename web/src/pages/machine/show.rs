//! One machine: its state, its last boot, its settings.

use super::settings::{Settings, SettingsErrors, SettingsForm};
use crate::pages::disks::ShownBeside;
use crate::pages::files::ShownLaid;
use crate::pages::refused::as_sentence;
use crate::pages::{
    Choice, Done, Failure, Frame, Page, StateMark, When, machine_name, origin, render,
};
use crate::text;
use crate::timeline::{Timeline, timeline};
use askama::Template;
use axum::extract::{Path, Query};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use model::{BootChoice, Capture, Edit, Follows, ImageChoice, MachineName, Origin, Setting, Site};
use service::{Error, MachineView, Now, PowerState, PowerVerb, Rescue, StateWord, Viewer};

/// How often the page is reloaded while the machine boots.
const REFRESH_SECONDS: u32 = 2;

/// Earlier boots on the page; they also show what is usual.
const HISTORY_MAX: u32 = 20;

#[derive(serde::Deserialize)]
pub(super) struct Options {
    /// What was just done.
    #[serde(default)]
    done: String,
    /// Shows the form while the machine boots; the page then is not loaded again.
    edit: Option<String>,
}

/// A NIC of the machine.
struct ShownNic {
    mac: String,
    address: String,
    /// Its last boot came from this one, and it has others.
    is_last: bool,
}

struct EarlierBoot {
    id: u64,
    started: When,
    /// The NIC that it came from.
    mac: String,
    image: String,
    took: String,
    end: &'static str,
    class: &'static str,
    detail: String,
}

struct Disk {
    layer: String,
    size: String,
    reads: String,
    writes: String,
    connections: String,
    last_request: String,
    /// How long reads, writes and flushes took, those of which there were any.
    times: Vec<String>,
    in_flight: u64,
    refused: u64,
    errors: u64,
}

#[derive(Template)]
#[template(path = "machine.html")]
struct MachinePage {
    frame: Frame,
    name: String,
    state: StateMark,
    since: Option<When>,
    ram: Option<String>,
    /// That a boot began in its name while it runs, and when.
    candidate: Option<(String, When)>,
    done: Option<&'static str>,
    nics: Vec<ShownNic>,
    address: String,
    uuid: String,
    firmware: String,
    secure_boot: Option<String>,
    shelf_slot: String,
    image: String,
    /// From where it has its image, its root and its write mode, if others say them.
    image_from: Option<String>,
    root: String,
    /// Whether it reads its disk over TLS.
    has_tls: bool,
    root_from: Option<String>,
    root_url: String,
    /// The machine's names for iSCSI targets, one for each NIC.
    initiators: Vec<String>,
    write_mode: &'static str,
    write_mode_from: Option<String>,
    menu: String,
    menu_from: Option<String>,
    /// What it starts the next time, once.
    next_boot: Option<String>,
    /// What it could start then.
    next_choices: Vec<Choice>,
    /// Its room, and its seat there.
    room: Option<String>,
    /// Words by which it is found.
    tags: String,
    /// What is laid over its root.
    files: Vec<ShownLaid>,
    disks: Vec<ShownBeside>,
    /// Over which nothing is laid.
    is_foreign_root: bool,
    keeps_disk: bool,
    /// An image is changed on it.
    edits: bool,
    reset_disk: bool,
    kernel_args: String,
    boot: Option<BootDrawing>,
    earlier: Vec<EarlierBoot>,
    /// It can be stopped, and who looks may do that.
    may_stop: bool,
    /// Why not, if he may stop others.
    may_not_stop: Option<String>,
    /// Whether its writes are waiting for room.
    is_stalled: bool,
    fails_writes: bool,
    /// What it was asked to do, and what became of that.
    power: Option<String>,
    rescue: Option<Rescue>,
    /// The image that is changed on it.
    edit: Option<Edit>,
    /// What its next boot sends of its own disks.
    capture: Option<Capture>,
    /// Why its image can't be booted, unless its state says so already.
    start_trouble: Option<String>,
    /// How many messages in its name were refused, if any.
    refused: Option<String>,
    /// While it boots the page is loaded again and again, which would lose what somebody types.
    form: Option<SettingsForm>,
    disk: Option<Disk>,
    /// What it is made of, if it has told.
    hardware: Option<String>,
    /// Somebody sends pictures of its screen.
    has_screen: bool,
    /// The boot whose kernel log is kept.
    kernel_log: Option<u64>,
    grub_cfg: Option<String>,
    is_example_address: bool,
    command: String,
}

struct BootDrawing {
    id: u64,
    /// The NIC that it came from, if the machine has several.
    mac: Option<String>,
    started: When,
    image: String,
    took: Option<String>,
    timeline: Timeline,
}

pub(super) async fn show(
    service: Viewer,
    Path(name): Path<String>,
    Query(options): Query<Options>,
) -> Page {
    let name = machine_name(&service, &name)?;
    let typed = options.edit.map(|_| Default::default());
    page(&service, &name, Done::sentence(&options.done), typed).await
}

/// The page, with what was just `done`; with `typed` it has the form even while the machine boots.
pub(super) async fn page(
    service: &Viewer,
    name: &MachineName,
    done: Option<&'static str>,
    typed: Option<(Settings, SettingsErrors)>,
) -> Page {
    let failed = |error| Failure::new(service, &error);
    let view = service.machine(name).await.map_err(failed)?;
    let preview = service.preview(name).await.map_err(failed)?;
    let now = service.now();
    let history = service.boots_of(view.machine.mac, HISTORY_MAX).await.map_err(failed)?;
    let is_booting = view.state.word.is_passing();
    let frame = Frame::new(service, "machines", name.as_str());
    let machine = &view.machine;
    let is_reloaded = is_booting && typed.is_none();
    let form = (frame.may_admin && !is_reloaded).then(|| {
        let (typed, errors) = typed.unwrap_or_default();
        SettingsForm::new(service, machine, typed, errors)
    });
    let status = match &form {
        Some(form) if !form.errors.is_empty() => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::OK,
    };
    let earlier: Vec<_> = history
        .iter()
        .filter(|boot| view.boot.as_ref().is_none_or(|last| boot.id < last.id))
        .cloned()
        .collect();
    let boot = view.boot.as_ref().map(|boot| BootDrawing {
        id: boot.id,
        mac: (view.nics.len() > 1).then(|| boot.mac.to_string()),
        started: When::ms(boot.started_unix_ms, now),
        image: booted_image(boot),
        took: view.took_ms().map(text::duration_ms),
        timeline: timeline(boot, &earlier, boot_end(&view, now)),
    });
    let can_stop = view.state.word == StateWord::Up && view.is_proven;
    let stopping = can_stop.then(|| service.check_work_with(machine));
    let has_tls = service.has_nbd_tls() && machine.root == model::RootKind::Nbd;
    let page = MachinePage {
        frame: if is_reloaded { frame.refreshed(REFRESH_SECONDS) } else { frame },
        state: StateMark::from(&view.state),
        since: view.state.since_unix_ms.map(|since| When::ms(since, now)),
        ram: view.ram_sentence(),
        candidate: view
            .candidate_sentence()
            .zip(view.candidate.as_ref().map(|boot| When::ms(boot.started_unix_ms, now))),
        done,
        nics: nics(&view),
        uuid: view.uuid.clone().unwrap_or_else(|| "not sent".to_owned()),
        address: view.address.map_or_else(|| "none yet".to_owned(), |address| address.to_string()),
        firmware: text::firmware(view.firmware),
        secure_boot: view.secure_boot.map(|state| state.to_string()),
        shelf_slot: machine.shelf_slot.to_string(),
        image: chosen_image(&view),
        image_from: inherited_from(machine, Setting::Image),
        root: match has_tls {
            true => format!("{} over TLS", machine.root.title()),
            false => machine.root.title().to_owned(),
        },
        has_tls,
        root_from: inherited_from(machine, Setting::Root),
        root_url: machine.root_url.as_ref().map_or_else(String::new, ToString::to_string),
        initiators: machine.macs().map(model::iscsi_initiator).collect(),
        write_mode: machine.writes().title(),
        write_mode_from: inherited_from(machine, Setting::WriteMode)
            .filter(|_| machine.writes() == machine.write_mode),
        menu: machine.menu.in_words(),
        menu_from: inherited_from(machine, Setting::Menu),
        next_boot: machine.next_boot.as_ref().map(BootChoice::in_words),
        next_choices: next_choices(&service.site(), machine),
        room: machine.room.as_ref().map(|room| match machine.seat {
            Some(seat) => format!("{room}, row {}, seat {}", seat.row, seat.column),
            None => room.to_string(),
        }),
        tags: machine.tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        reset_disk: machine.reset_disk,
        disks: service
            .disks_of_machine(name)
            .await
            .map_err(failed)?
            .iter()
            .map(|disk| ShownBeside::new(disk, service))
            .collect(),
        files: service
            .files_on_machine(name)
            .await
            .map_err(failed)?
            .into_iter()
            .map(|laid| ShownLaid::new(laid, service))
            .collect(),
        is_foreign_root: machine.root.is_foreign(),
        keeps_disk: machine.as_it_boots().write_mode == model::WriteMode::Persistent
            && !machine.as_it_boots().root.is_foreign(),
        edits: machine.edit.is_some(),
        kernel_args: machine.kernel_args.to_string(),
        boot,
        earlier: earlier.iter().map(|boot| earlier_boot(boot, now)).collect(),
        is_stalled: view.export.as_ref().is_some_and(|export| export.stall.is_some()),
        fails_writes: view.export.as_ref().is_some_and(|export| export.fails_writes),
        may_stop: matches!(stopping, Some(Ok(()))),
        may_not_stop: match &stopping {
            Some(Err(error @ (Error::NotThisMachine { .. } | Error::NotNow { .. }))) => {
                Some(as_sentence(error))
            }
            _ => None,
        },
        power: view.power.as_ref().map(|power| power_sentence(power, now)),
        rescue: view.rescue.clone(),
        edit: view.machine.edit.clone(),
        capture: view.machine.capture.clone(),
        start_trouble: view
            .start_trouble
            .as_ref()
            .filter(|trouble| !view.state.sentence.contains(*trouble))
            .map(|trouble| format!("It can't start: {trouble}")),
        refused: (view.n_refused > 0).then(|| text::count(view.n_refused, "message", "messages")),
        form,
        disk: view.export.as_ref().map(disk),
        hardware: service
            .hardware(name)
            .map_err(failed)?
            .map(|known| hardware(&known, service.fits_initrds(), machine.root)),
        kernel_log: service.kernel_log(name).await.map_err(failed)?.map(|log| log.boot),
        has_screen: service.screen(name).is_some(),
        is_example_address: preview.as_ref().is_some_and(|preview| preview.is_example_address),
        grub_cfg: preview.map(|preview| preview.grub_cfg),
        command: command(machine),
        name: name.to_string(),
    };
    Ok(render(status, &page))
}

fn nics(view: &MachineView) -> Vec<ShownNic> {
    let last = view.boot.as_ref().filter(|_| view.nics.len() > 1).map(|boot| boot.mac);
    let nics = view.nics.iter();
    nics.map(|nic| ShownNic {
        mac: nic.mac.to_string(),
        address: nic
            .address
            .map_or_else(|| "no address yet".to_owned(), |address| address.to_string()),
        is_last: last == Some(nic.mac),
    })
    .collect()
}

/// What is known of the hardware, and what follows from it.
fn hardware(hardware: &service::Hardware, are_fitted: bool, root: model::RootKind) -> String {
    let n_devices = hardware.devices().count();
    let initrd = match (hardware.is_trusted(), hardware.fitted_boot) {
        _ if root.is_foreign() => {
            "it boots the general initrd, which can attach a root on another server"
        }
        _ if !are_fitted => "it boots the general initrd, as all machines of this site do",
        (false, _) => "it boots the general initrd, since one made for it failed twice",
        (true, Some(_)) => "it boots a small initrd made for it",
        (true, None) => "a small initrd is being made for its next boots",
    };
    format!("{n_devices} devices; {initrd}")
}

/// Until when the last bar of an unfinished boot is drawn: one that was given up grows no more.
fn boot_end(view: &MachineView, now: Now) -> u64 {
    match (&view.boot, view.state.word.is_passing()) {
        (Some(boot), false) => boot.current().map_or(boot.started_unix_ms, |last| last.at_unix_ms),
        _ => now.unix_ms,
    }
}

fn booted_image(boot: &model::Boot) -> String {
    match &boot.image {
        Some((image, version)) => format!("{image} version {version}"),
        None => "no image yet".to_owned(),
    }
}

fn chosen_image(view: &MachineView) -> String {
    match (&view.machine.as_it_boots().image, view.next_version) {
        _ if view.machine.edit.is_some() => "the one that is changed on it".to_owned(),
        (None, _) => "none: it waits in the loader".to_owned(),
        (Some(image), Some(version)) => format!("{image}, version {version}"),
        (Some(image), None) => format!("{image}, which is missing"),
    }
}

/// What the machine could start once: all but what it starts in any case.
fn next_choices(site: &Site, machine: &model::Machine) -> Vec<Choice> {
    let of_each = site.systems_by_image();
    let images = of_each.flat_map(|of_image| {
        let choice = |follows| ImageChoice { image: of_image[0].image.clone(), follows };
        let (released, tested) = (choice(Follows::Released), choice(Follows::Test));
        let is_other = site.chosen(&tested) != site.chosen(&released);
        [Some(released), is_other.then_some(tested)].into_iter().flatten()
    });
    let others = images.filter(|image| machine.image.as_ref() != Some(image));
    let others = others.map(BootChoice::OtherImage);
    [BootChoice::Image, BootChoice::LocalDisk, BootChoice::MemoryTest]
        .into_iter()
        .chain(others)
        .filter(|choice| choice != machine.menu.first())
        .map(|choice| Choice::new(&choice.to_string(), choice.in_words(), ""))
        .collect()
}

/// Who says it in the machine's place, if anybody does.
fn inherited_from(machine: &model::Machine, setting: Setting) -> Option<String> {
    match machine.set_by.of(setting) {
        Origin::Machine | Origin::Default => None,
        others => Some(origin(machine, others)),
    }
}

/// What was asked, and what became of it.
fn power_sentence(power: &PowerState, now: Now) -> String {
    let asked = match power.verb {
        PowerVerb::Reboot => "It was asked to restart",
        PowerVerb::Poweroff => "It was asked to shut down",
    };
    let asked_at = When::ms(power.asked_unix_ms, now).ago;
    let answer = match power.obeyed_unix_ms {
        Some(_) => "it is doing so",
        None if power.is_open(now.unix_ms) => "no answer yet",
        None => "it never answered, and is no longer being asked",
    };
    format!("{asked} ({asked_at}): {answer}.")
}

fn earlier_boot(boot: &model::Boot, now: Now) -> EarlierBoot {
    use model::Stage;
    let last = boot.current();
    let (end, class) = match last.map(|event| event.stage) {
        Some(Stage::Up) => ("● came up", "ok"),
        Some(Stage::Failed) => ("✕ failed", "fail"),
        Some(Stage::Handover) => ("○ system started, not up", "off"),
        _ => ("○ unfinished", "off"),
    };
    let detail = match last {
        Some(event) if event.stage == Stage::Failed => {
            format!("{} (code {})", event.detail, service::failure_code(boot.id, boot.mac))
        }
        Some(event) if event.stage < Stage::Handover => {
            format!("last stage: {}", event.stage.title())
        }
        _ => String::new(),
    };
    let took_ms = last
        .filter(|event| event.stage == Stage::Up)
        .map(|event| event.at_unix_ms.saturating_sub(boot.started_unix_ms));
    EarlierBoot {
        id: boot.id,
        mac: boot.mac.to_string(),
        started: When::ms(boot.started_unix_ms, now),
        image: boot
            .image
            .as_ref()
            .map_or_else(|| "–".to_owned(), |(image, version)| format!("{image} · v{version}")),
        took: took_ms.map_or_else(|| "–".to_owned(), text::duration_ms),
        end,
        class,
        detail,
    }
}

fn disk(export: &model::ExportStatus) -> Disk {
    let counters = &export.counters;
    Disk {
        layer: text::bytes(export.layer_bytes),
        size: text::bytes(export.size_bytes),
        reads: format!("{} in {} requests", text::bytes(counters.read_bytes), counters.reads),
        writes: format!("{} in {} requests", text::bytes(counters.written_bytes), counters.writes),
        connections: match export.servers.as_slice() {
            [] => export.connections.to_string(),
            servers => {
                let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
                format!("{}, to {}", export.connections, servers.join(", "))
            }
        },
        last_request: export
            .idle_seconds
            .map_or_else(|| "none yet".to_owned(), |seconds| format!("{seconds} s ago")),
        times: [
            ("reads", &counters.read_times),
            ("writes", &counters.write_times),
            ("flushes", &counters.flush_times),
        ]
        .into_iter()
        .filter_map(|(what, times)| times_sentence(what, times))
        .collect(),
        in_flight: counters.in_flight,
        refused: counters.refused,
        errors: counters.errors,
    }
}

/// How long requests took; `None` if there were none.
fn times_sentence(what: &str, times: &model::Times) -> Option<String> {
    let within = |per_mille| match times.within_us(per_mille) {
        Some(us) => format!("≤ {}", text::duration_us(us)),
        None => format!("> {}", text::duration_us(model::Times::LONGEST_BOUND_US)),
    };
    (times.count() > 0)
        .then(|| format!("{what}: median {}, 99th percentile {}", within(500), within(990)))
}

/// The command line that makes the machine what it is.
fn command(machine: &model::Machine) -> String {
    let mut words = vec![format!("bootlace machine set {}", machine.name)];
    let is_own = |setting| machine.set_by.of(setting) == Origin::Machine;
    if let Some(image) = machine.image.as_ref().filter(|_| is_own(Setting::Image)) {
        words.push(format!("--image {image}"));
    }
    if is_own(Setting::Root) {
        words.push(match &machine.root_url {
            // Quotes: a shell has its own thoughts about ?.
            Some(url) => format!("--root-url '{url}'"),
            None => format!("--root-kind {}", machine.root),
        });
    }
    if is_own(Setting::WriteMode) {
        words.push(format!("--write-mode {}", machine.write_mode));
    }
    if is_own(Setting::Menu) {
        words.push(format!("--menu {}", machine.menu));
    }
    words.extend(machine.room.iter().map(|room| format!("--room {room}")));
    words.extend(machine.seat.iter().map(|seat| format!("--seat {seat}")));
    words.extend(machine.tags.iter().map(|tag| format!("--tag {tag}")));
    words.join(" ")
}

/// The kernel's log of the last failed boot, as text.
/// What its screen shows.
pub(super) async fn screen(service: Viewer, Path(name): Path<String>) -> Page {
    let name = machine_name(&service, &name)?;
    let Some(picture) = service.screen(&name) else {
        let detail = format!("Nobody sends pictures of the screen of {name}.");
        return Err(Failure::with(&service, StatusCode::NOT_FOUND, detail));
    };
    let headers = [(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, picture).into_response())
}

pub(super) async fn kernel_log(service: Viewer, Path(name): Path<String>) -> Page {
    let name = machine_name(&service, &name)?;
    let log = service.kernel_log(&name).await.map_err(|error| Failure::new(&service, &error))?;
    let Some(log) = log else {
        let detail = format!("No failed boot of {name} has sent its kernel log.");
        return Err(Failure::with(&service, StatusCode::NOT_FOUND, detail));
    };
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((headers, format!("# {name}, boot {}\n{}", log.boot, log.text)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::RootKind;

    #[test]
    fn what_is_said_of_its_initrd_is_what_it_boots() {
        let told = |fitted_boot, failures| service::Hardware {
            boot: 7,
            modaliases: vec!["pci:v00008086d0000100Esv".to_owned()],
            fitted_boot,
            failures,
        };
        let check = |known, are_fitted, root, says: &str| {
            let said = hardware(&known, are_fitted, root);
            assert!(said.contains(says), "{said}");
        };
        check(told(None, 0), true, RootKind::Nbd, "is being made for its next boots");
        check(told(Some(7), 0), true, RootKind::Aoe, "boots a small initrd made for it");
        check(told(Some(7), 2), true, RootKind::Nbd, "since one made for it failed twice");
        check(told(None, 0), false, RootKind::Nbd, "as all machines of this site do");
        check(told(None, 0), true, RootKind::Nfs, "which can attach a root on another server");
    }
}
