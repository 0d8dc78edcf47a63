//! One machine: its state, its last boot, its settings.

use super::{
    Choice, Failure, Frame, Page, StateMark, When, image_choices, machine_name, render,
    root_choices, see_other, write_mode_choices,
};
use crate::text;
use crate::timeline::{Timeline, timeline};
use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::{
    BadRootUrl, ImageName, InvalidName, MachineName, ParseChoiceError, RootKind, StallVerb,
};
use service::{
    Error, MachineChange, MachineView, PowerState, PowerVerb, Rescue, Service, StateWord,
};

/// While it boots.
const REFRESH_SECONDS: u32 = 2;

/// Earlier boots on the page; they also tell what is usual.
const HISTORY_MAX: u32 = 20;

#[derive(serde::Deserialize)]
pub(crate) struct Options {
    /// What was just done.
    #[serde(default)]
    done: String,
    /// Shows the form while the machine boots; the page then is not loaded again.
    edit: Option<String>,
}

/// The settings as somebody typed them. A field that a script leaves out stays as it is.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(crate) struct Settings {
    image: Option<String>,
    root: Option<String>,
    root_url: Option<String>,
    write_mode: Option<String>,
    kernel_args: Option<String>,
}

/// What is wrong with the settings; empty texts are no errors.
#[derive(Clone, Debug, Default)]
struct SettingsErrors {
    image: String,
    root: String,
    root_url: String,
    write_mode: String,
    kernel_args: String,
}

impl SettingsErrors {
    fn all(&self) -> Vec<&str> {
        let all = [&self.image, &self.root, &self.root_url, &self.write_mode, &self.kernel_args];
        all.into_iter().map(String::as_str).filter(|text| !text.is_empty()).collect()
    }
}

struct EarlierBoot {
    id: u64,
    started: When,
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
    connections: u32,
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
    done: &'static str,
    mac: String,
    address: String,
    firmware: String,
    shelf_slot: String,
    image: String,
    root: String,
    root_url: String,
    /// The machine's name for iSCSI targets.
    initiator: String,
    write_mode: &'static str,
    keeps_disk: bool,
    reset_disk: bool,
    kernel_args: String,
    boot: Option<BootDrawing>,
    earlier: Vec<EarlierBoot>,
    can_stop: bool,
    /// Its writes wait.
    is_stalled: bool,
    /// What it was asked to do, and whether it obeys.
    power: Option<String>,
    rescue: Option<Rescue>,
    n_refused: u64,
    has_form: bool,
    images: Vec<Choice>,
    roots: Vec<Choice>,
    typed_root_url: String,
    write_modes: Vec<Choice>,
    typed_kernel_args: String,
    errors: SettingsErrors,
    disk: Option<Disk>,
    /// What it is made of, if it has told.
    hardware: Option<String>,
    /// The boot whose kernel log is kept.
    kernel_log: Option<u64>,
    grub_cfg: Option<String>,
    is_example_address: bool,
    command: String,
}

struct BootDrawing {
    id: u64,
    started: When,
    image: String,
    took: Option<String>,
    timeline: Timeline,
}

pub(crate) async fn show(
    State(service): State<Service>,
    Path(name): Path<String>,
    Query(options): Query<Options>,
) -> Page {
    let name = machine_name(&service, &name)?;
    page(&service, &name, StatusCode::OK, &options, None).await
}

pub(crate) async fn save(
    State(service): State<Service>,
    Path(name): Path<String>,
    Form(settings): Form<Settings>,
) -> Page {
    let name = machine_name(&service, &name)?;
    service.machine(&name).map_err(|error| Failure::new(&service, &error))?;
    let mut errors = SettingsErrors::default();
    let change = parse(&settings, &mut errors);
    if errors.all().is_empty() {
        match service.set_machine(name.clone(), change).await {
            Ok(_) => return Ok(see_other(&format!("/machines/{name}"), "saved")),
            Err(error @ (Error::NoRootUrl { .. } | Error::RootUrlOfOtherKind { .. })) => {
                errors.root_url = error.chain();
            }
            // Of what the form holds, only the image can be refused then.
            Err(error) if error.is_wrong_input() => errors.image = error.chain(),
            Err(error) => return Err(Failure::new(&service, &error)),
        }
    }
    let options = Options { done: String::new(), edit: Some(String::new()) };
    let refused = Some((settings, errors));
    page(&service, &name, StatusCode::UNPROCESSABLE_ENTITY, &options, refused).await
}

fn parse(settings: &Settings, errors: &mut SettingsErrors) -> MachineChange {
    fn choice<T: std::str::FromStr<Err = ParseChoiceError>>(
        text: Option<&String>,
        error: &mut String,
    ) -> Option<T> {
        text?.parse().map_err(|wrong: ParseChoiceError| *error = wrong.to_string()).ok()
    }
    let image = settings.image.as_deref().map(|image| match image {
        "" => None,
        image => image
            .parse::<ImageName>()
            .map_err(|wrong: InvalidName| errors.image = wrong.to_string())
            .ok(),
    });
    let root: Option<RootKind> = choice(settings.root.as_ref(), &mut errors.root);
    // The field keeps its text when somebody chooses another kind of root.
    let url = settings.root_url.as_deref().map(str::trim).filter(|url| !url.is_empty());
    let root_url = url.filter(|_| root.is_none_or(RootKind::is_foreign)).and_then(|url| {
        url.parse().map_err(|wrong: BadRootUrl| errors.root_url = wrong.to_string()).ok()
    });
    MachineChange {
        mac: None,
        image,
        root,
        root_url,
        write_mode: choice(settings.write_mode.as_ref(), &mut errors.write_mode),
        kernel_args: choice(settings.kernel_args.as_ref(), &mut errors.kernel_args),
        reset_disk: None,
    }
}

async fn page(
    service: &Service,
    name: &MachineName,
    status: StatusCode,
    options: &Options,
    refused: Option<(Settings, SettingsErrors)>,
) -> Page {
    let failed = |error| Failure::new(service, &error);
    let view = service.machine(name).map_err(failed)?;
    let preview = service.preview(name).map_err(failed)?;
    let history = service.boots_of(view.machine.mac, HISTORY_MAX).await.map_err(failed)?;
    let is_booting = view.state.word.is_passing();
    let is_editing = options.edit.is_some();
    let frame = Frame::new(service, "machines", name.as_str());
    let machine = &view.machine;
    let (typed, errors) = refused.unwrap_or_default();
    let typed_image = typed
        .image
        .unwrap_or_else(|| machine.image.as_ref().map_or_else(String::new, ToString::to_string));
    let typed_root = typed.root.unwrap_or_else(|| machine.root.to_string());
    let typed_mode = typed.write_mode.unwrap_or_else(|| machine.write_mode.to_string());
    let earlier: Vec<_> = history
        .iter()
        .filter(|boot| view.boot.as_ref().is_none_or(|last| last.id != boot.id))
        .cloned()
        .collect();
    let boot = view.boot.as_ref().map(|boot| BootDrawing {
        id: boot.id,
        started: When::ms(boot.started_unix_ms),
        image: booted_image(boot),
        took: view.took_ms().map(text::duration_ms),
        timeline: timeline(boot, &earlier, boot_end(&view)),
    });
    let page = MachinePage {
        frame: if is_booting && !is_editing { frame.refreshed(REFRESH_SECONDS) } else { frame },
        state: StateMark::from(&view.state),
        since: view.state.since_unix_ms.map(When::ms),
        ram: view.ram_sentence(),
        done: match options.done.as_str() {
            "saved" => "Saved. It takes effect when the machine starts the next time.",
            "reboot" | "poweroff" => "It is asked to stop.",
            "reset" => "Its disk begins anew when it starts the next time.",
            "rescue" => "It stops in a rescue shell when it starts the next time.",
            "no-rescue" => "It boots as usual when it starts the next time.",
            "kept" => "Its disk stays as it is.",
            "resumed" => "Its writes are tried again.",
            "failed" => "Its writes have failed.",
            "adopted" => {
                "Adopted. If it waits in the loader, it goes on by itself within ten seconds."
            }
            _ => "",
        },
        mac: machine.mac.to_string(),
        address: view.address.map_or_else(|| "none yet".to_owned(), |address| address.to_string()),
        firmware: text::firmware(view.firmware),
        shelf_slot: machine.shelf_slot.to_string(),
        image: chosen_image(&view),
        root: root_title(machine.root).to_owned(),
        root_url: machine.root_url.as_ref().map_or_else(String::new, ToString::to_string),
        initiator: model::iscsi_initiator(machine.mac),
        write_mode: text::write_mode(machine.write_mode),
        reset_disk: machine.reset_disk,
        keeps_disk: machine.write_mode == model::WriteMode::Persistent
            && !machine.root.is_foreign(),
        kernel_args: machine.kernel_args.to_string(),
        boot,
        earlier: earlier.iter().map(earlier_boot).collect(),
        is_stalled: view.export.as_ref().is_some_and(|export| export.stall.is_some()),
        can_stop: view.state.word == StateWord::Up && view.is_proven,
        power: view.power.as_ref().map(power_sentence),
        rescue: view.rescue.clone(),
        n_refused: view.n_refused,
        has_form: !is_booting || is_editing,
        images: image_choices(service, &typed_image),
        roots: root_choices(&typed_root),
        typed_root_url: typed.root_url.unwrap_or_else(|| {
            machine.root_url.as_ref().map_or_else(String::new, ToString::to_string)
        }),
        write_modes: write_mode_choices(&typed_mode),
        typed_kernel_args: typed.kernel_args.unwrap_or_else(|| machine.kernel_args.to_string()),
        errors,
        disk: view.export.as_ref().map(disk),
        hardware: service.hardware(name).await.map_err(failed)?.map(|known| hardware(&known)),
        kernel_log: service.kernel_log(name).await.map_err(failed)?.map(|log| log.boot),
        is_example_address: preview.as_ref().is_some_and(|preview| preview.is_example_address),
        grub_cfg: preview.map(|preview| preview.grub_cfg),
        command: command(machine),
        name: name.to_string(),
    };
    Ok(render(status, &page))
}

/// What is known of the hardware, and what follows from it.
fn hardware(hardware: &service::Hardware) -> String {
    let n_devices = hardware.modaliases.len();
    let initrd = match (hardware.is_trusted(), hardware.fitted_boot) {
        (false, _) => "boots the initrd for all machines, as one made for it failed twice",
        (true, Some(_)) => "boots a small initrd made for it",
        (true, None) => "a small initrd is made for its next boots",
    };
    format!("{n_devices} devices; {initrd}")
}

/// Until when the last bar of an unfinished boot is drawn: one that was given up grows no more.
fn boot_end(view: &MachineView) -> u64 {
    match (&view.boot, view.state.word.is_passing()) {
        (Some(boot), false) => boot.current().map_or(boot.started_unix_ms, |last| last.at_unix_ms),
        _ => text::now_unix_ms(),
    }
}

fn booted_image(boot: &model::Boot) -> String {
    match &boot.image {
        Some((image, version)) => format!("{image} version {version}"),
        None => "no image yet".to_owned(),
    }
}

fn chosen_image(view: &MachineView) -> String {
    match (&view.machine.image, view.next_version) {
        (None, _) => "none: it waits in the loader".to_owned(),
        (Some(image), Some(version)) => format!("{image}, version {version}"),
        (Some(image), None) => format!("{image}, which is not there"),
    }
}

/// What was asked, and what became of it.
fn power_sentence(power: &PowerState) -> String {
    let asked = match power.verb {
        PowerVerb::Reboot => "It was asked to start again",
        PowerVerb::Poweroff => "It was asked to switch itself off",
    };
    let asked_at = When::ms(power.asked_unix_ms).ago;
    let answer = match power.obeyed_unix_ms {
        Some(_) => "it obeys",
        None if power.is_open(text::now_unix_ms()) => "no answer yet",
        None => "it never answered, and is not asked any more",
    };
    format!("{asked}, {asked_at}: {answer}.")
}

const fn root_title(root: RootKind) -> &'static str {
    match root {
        RootKind::Nbd => "NBD",
        RootKind::Aoe => "AoE",
        RootKind::Nfs => "NFS",
        RootKind::Iscsi => "iSCSI",
    }
}

fn earlier_boot(boot: &model::Boot) -> EarlierBoot {
    use model::Stage;
    let last = boot.current();
    let (end, class) = match last.map(|event| event.stage) {
        Some(Stage::Up) => ("● came up", "ok"),
        Some(Stage::Failed) => ("✕ failed", "fail"),
        Some(Stage::Handover) => ("● system started", "ok"),
        _ => ("○ broke off", "off"),
    };
    let detail = match last {
        Some(event) if event.stage == Stage::Failed => {
            format!("{} (code {})", event.detail, service::failure_code(boot.id, boot.mac))
        }
        Some(event) if event.stage < Stage::Handover => format!("after: {}", event.stage.title()),
        _ => String::new(),
    };
    let took_ms = last
        .filter(|event| event.stage == Stage::Up)
        .map(|event| event.at_unix_ms.saturating_sub(boot.started_unix_ms));
    EarlierBoot {
        id: boot.id,
        started: When::ms(boot.started_unix_ms),
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
        connections: export.connections,
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
        Some(us) => format!("within {}", text::duration_us(us)),
        None => "later than that".to_owned(),
    };
    (times.count() > 0).then(|| format!("{what}: half {}, 99 % {}", within(500), within(990)))
}

/// The command line that makes the machine what it is.
fn command(machine: &model::Machine) -> String {
    let image =
        machine.image.as_ref().map_or_else(String::new, |image| format!(" --image {image}"));
    let root = match &machine.root_url {
        // Quotes: a shell has its own thoughts about ?.
        Some(url) => format!("--root-url '{url}'"),
        None => format!("--root-kind {}", machine.root),
    };
    let model::Machine { name, write_mode, .. } = machine;
    format!("bootlace machine set {name}{image} {root} --write-mode {write_mode}")
}

/// The kernel's log of the last failed boot, as text.
pub(crate) async fn kernel_log(State(service): State<Service>, Path(name): Path<String>) -> Page {
    let name = machine_name(&service, &name)?;
    let log = service.kernel_log(&name).await.map_err(|error| Failure::new(&service, &error))?;
    let Some(log) = log else {
        let detail = format!("No boot of {name} has failed and sent its kernel log.");
        return Err(Failure::with(&service, StatusCode::NOT_FOUND, detail));
    };
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((headers, format!("# {name}, boot {}\n{}", log.boot, log.text)).into_response())
}

/// Asks before something is lost.
#[derive(Template)]
#[template(path = "confirm.html")]
struct ConfirmPage {
    frame: Frame,
    name: String,
    state: StateMark,
    /// The last part of the form's address.
    action: &'static str,
    question: String,
    consequence: String,
    button: String,
}

/// What is asked of a person, and what comes of it.
struct Question {
    /// The last part of the form's address.
    action: &'static str,
    question: String,
    consequence: String,
    button: String,
}

/// Asks before something is done to a machine.
fn ask(
    service: &Service,
    name: &str,
    about: impl FnOnce(&MachineName, &MachineView) -> Question,
) -> Page {
    let name = machine_name(service, name)?;
    let view = service.machine(&name).map_err(|error| Failure::new(service, &error))?;
    let Question { action, question, consequence, button } = about(&name, &view);
    let page = ConfirmPage {
        frame: Frame::new(service, "machines", question.clone()),
        state: StateMark::from(&view.state),
        action,
        question,
        consequence,
        button,
        name: name.to_string(),
    };
    Ok(render(StatusCode::OK, &page))
}

/// Asks before the machine is removed.
pub(crate) async fn ask_remove(State(service): State<Service>, Path(name): Path<String>) -> Page {
    ask(&service, &name, |name, view| Question {
        action: "remove",
        question: format!("Remove {name}?"),
        consequence: format!(
            "Its disk is closed, and everything that it has written is lost. A system that runs on it stops \
             working at once. If the PC {} asks again, it appears under Discovered.",
            view.machine.mac
        ),
        button: format!("Remove {name}"),
    })
}

/// Asks before the system of whoever works with the machine is stopped.
fn ask_power(service: &Service, name: &str, verb: PowerVerb) -> Page {
    ask(service, name, |name, _| {
        let button = match verb {
            PowerVerb::Reboot => format!("Start {name} again"),
            PowerVerb::Poweroff => format!("Switch {name} off"),
        };
        Question {
            action: verb.word(),
            question: format!("{button}?"),
            consequence:
                "Its system is stopped in order. What people who work with it have not saved is lost."
                    .to_owned(),
            button,
        }
    })
}

async fn stop(service: &Service, name: &str, verb: PowerVerb) -> Page {
    let name = machine_name(service, name)?;
    service.order(&name, verb).await.map_err(|error| Failure::new(service, &error))?;
    Ok(see_other(&format!("/machines/{name}"), verb.word()))
}

/// Asks before the machine starts again.
pub(crate) async fn ask_reboot(State(service): State<Service>, Path(name): Path<String>) -> Page {
    ask_power(&service, &name, PowerVerb::Reboot)
}

/// Starts the machine again.
pub(crate) async fn reboot(State(service): State<Service>, Path(name): Path<String>) -> Page {
    stop(&service, &name, PowerVerb::Reboot).await
}

/// Asks before the machine is switched off.
pub(crate) async fn ask_poweroff(State(service): State<Service>, Path(name): Path<String>) -> Page {
    ask_power(&service, &name, PowerVerb::Poweroff)
}

/// Switches the machine off.
pub(crate) async fn poweroff(State(service): State<Service>, Path(name): Path<String>) -> Page {
    stop(&service, &name, PowerVerb::Poweroff).await
}

/// Asks before a machine gets an error for its writes that wait.
pub(crate) async fn ask_fail_writes(
    State(service): State<Service>,
    Path(name): Path<String>,
) -> Page {
    ask(&service, &name, |name, _| {
        Question {
        action: "fail-writes",
        question: format!("Fail the writes of {name}?"),
        consequence:
            "It gets an error for each write that waits. Most systems then make their root read-only, and \
             have to be started again. If it waits on, nothing is lost."
                .to_owned(),
        button: "Fail its writes".to_owned(),
    }
    })
}

/// Gives the machine an error for its writes that wait.
pub(crate) async fn fail_writes(State(service): State<Service>, Path(name): Path<String>) -> Page {
    decide_stall(&service, &name, StallVerb::Fail).await
}

/// Tries the machine's writes again that wait.
pub(crate) async fn resume_writes(
    State(service): State<Service>,
    Path(name): Path<String>,
) -> Page {
    decide_stall(&service, &name, StallVerb::Resume).await
}

async fn decide_stall(service: &Service, name: &str, verb: StallVerb) -> Page {
    let name = machine_name(service, name)?;
    let decided = service.decide_stall(&name, verb).await;
    decided.map_err(|error| Failure::new(service, &error))?;
    let done = if verb == StallVerb::Resume { "resumed" } else { "failed" };
    Ok(see_other(&format!("/machines/{name}"), done))
}

/// Lets the machine's next boot stop in a rescue shell.
pub(crate) async fn want_rescue(State(service): State<Service>, Path(name): Path<String>) -> Page {
    let name = machine_name(&service, &name)?;
    let wanted = service.want_rescue(&name).await;
    wanted.map_err(|error| Failure::new(&service, &error))?;
    Ok(see_other(&format!("/machines/{name}"), "rescue"))
}

/// Lets it boot as usual after all.
pub(crate) async fn forget_rescue(
    State(service): State<Service>,
    Path(name): Path<String>,
) -> Page {
    let name = machine_name(&service, &name)?;
    let forgotten = service.forget_rescue(&name).await;
    forgotten.map_err(|error| Failure::new(&service, &error))?;
    Ok(see_other(&format!("/machines/{name}"), "no-rescue"))
}

/// Asks before the machine's disk begins anew.
pub(crate) async fn ask_reset(State(service): State<Service>, Path(name): Path<String>) -> Page {
    ask(&service, &name, |name, _| Question {
        action: "reset",
        question: format!("Reset the disk of {name}?"),
        consequence:
            "Everything that it has written is lost. It begins anew with the newest version of its \
             image when it starts the next time. It must be switched off now."
                .to_owned(),
        button: "Reset the disk".to_owned(),
    })
}

pub(crate) async fn reset(State(service): State<Service>, Path(name): Path<String>) -> Page {
    set_reset(&service, &name, true).await
}

/// Takes a reset back that has not happened yet.
pub(crate) async fn keep(State(service): State<Service>, Path(name): Path<String>) -> Page {
    set_reset(&service, &name, false).await
}

async fn set_reset(service: &Service, name: &str, reset_disk: bool) -> Page {
    let name = machine_name(service, name)?;
    service.machine(&name).map_err(|error| Failure::new(service, &error))?;
    let change = MachineChange { reset_disk: Some(reset_disk), ..MachineChange::default() };
    let changed = service.set_machine(name.clone(), change).await;
    changed.map_err(|error| Failure::new(service, &error))?;
    Ok(see_other(&format!("/machines/{name}"), if reset_disk { "reset" } else { "kept" }))
}

pub(crate) async fn remove(
    State(service): State<Service>,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let name = machine_name(&service, &name)?;
    service.remove_machine(name).await.map_err(|error| Failure::new(&service, &error))?;
    Ok(see_other("/machines", "removed"))
}
