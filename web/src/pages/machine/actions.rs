//! What is done to a machine, after a question where something may be lost.

use crate::pages::{Done, Failure, Frame, Page, StateMark, machine_name, render, see_other};
use askama::Template;
use axum::Form;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use model::{
    BootChoice, CaptureEnd, CaptureOrder, ImageName, MachineName, Size, StallVerb, VersionState,
};
use service::{Admin, MachineChange, MachineView, NewCapture, Operator, PowerVerb, Viewer};

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
async fn ask(
    service: &Viewer,
    name: &str,
    about: impl FnOnce(&MachineName, &MachineView) -> Question,
) -> Page {
    let name = machine_name(service, name)?;
    let view = service.machine(&name).await.map_err(|error| Failure::new(service, &error))?;
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
pub(super) async fn ask_remove(service: Admin, Path(name): Path<String>) -> Page {
    let parsed = machine_name(&service, &name)?;
    let disk = service.written_disk(&parsed).await;
    let disk = disk.map_err(|error| Failure::new(&service, &error))?;
    let (written, of_another) = disk.map_or((None, None), |it| (it.written_bytes, it.of_another));
    let lost = match (of_another, written) {
        (Some(owner), _) => format!(
            "Its disk is closed. The disk of its name is kept, as it is of another machine that had this name ({owner})."
        ),
        (None, Some(bytes)) => format!(
            "Its disk is closed, and everything it has written ({} on its disk) is lost.",
            Size(bytes)
        ),
        (None, None) => "Its disk is closed, and everything it has written is lost.".to_owned(),
    };
    ask(&service, &name, |name, view| Question {
        action: "remove",
        question: format!("Remove {name}?"),
        consequence: format!(
            "{lost} A system that is running from it stops working at once. If the PC {} asks again, it appears under Discovered.",
            view.machine.macs().map(|mac| mac.to_string()).collect::<Vec<_>>().join(", ")
        ),
        button: format!("Remove {name}"),
    }).await
}

/// Asks before the system of whoever works with the machine is stopped.
async fn ask_power(service: &Operator, name: &str, verb: PowerVerb) -> Page {
    let parsed = machine_name(service, name)?;
    service.work_with(&parsed).map_err(|error| Failure::new(service, &error))?;
    ask(service, name, |name, _| {
        let button = match verb {
            PowerVerb::Reboot => format!("Restart {name}"),
            PowerVerb::Poweroff => format!("Shut down {name}"),
        };
        Question {
            action: verb.word(),
            question: format!("{button}?"),
            consequence:
                "Its system is stopped in an orderly way. Work that has not been saved is lost."
                    .to_owned(),
            button,
        }
    })
    .await
}

async fn stop(service: &Operator, name: &str, verb: PowerVerb) -> Page {
    let name = machine_name(service, name)?;
    service.order(&name, verb).await.map_err(|error| Failure::new(service, &error))?;
    let done = match verb {
        PowerVerb::Reboot => Done::Rebooting,
        PowerVerb::Poweroff => Done::ShuttingDown,
    };
    Ok(see_other(&format!("/machines/{name}"), done))
}

/// Asks before the machine is restarted.
pub(super) async fn ask_reboot(service: Operator, Path(name): Path<String>) -> Page {
    ask_power(&service, &name, PowerVerb::Reboot).await
}

/// Restarts the machine.
pub(super) async fn reboot(service: Operator, Path(name): Path<String>) -> Page {
    stop(&service, &name, PowerVerb::Reboot).await
}

/// Asks before the machine is shut down.
pub(super) async fn ask_poweroff(service: Operator, Path(name): Path<String>) -> Page {
    ask_power(&service, &name, PowerVerb::Poweroff).await
}

/// Shuts the machine down.
pub(super) async fn poweroff(service: Operator, Path(name): Path<String>) -> Page {
    stop(&service, &name, PowerVerb::Poweroff).await
}

/// Asks before a machine gets an error for the writes that are waiting.
pub(super) async fn ask_fail_writes(service: Admin, Path(name): Path<String>) -> Page {
    ask(&service, &name, |name, _| {
        Question {
        action: "fail-writes",
        question: format!("Fail the writes of {name}?"),
        consequence:
            "It gets an error for every write that is waiting, and for later ones until there is room again. Most systems then make their root read-only and \
             have to be restarted. If you let it wait, nothing is lost."
                .to_owned(),
        button: "Fail its writes".to_owned(),
    }
    }).await
}

/// Gives the machine an error for the writes that are waiting.
pub(super) async fn fail_writes(service: Admin, Path(name): Path<String>) -> Page {
    decide_stall(&service, &name, StallVerb::Fail).await
}

/// Retries the machine's writes that are waiting.
pub(super) async fn resume_writes(service: Admin, Path(name): Path<String>) -> Page {
    decide_stall(&service, &name, StallVerb::Resume).await
}

async fn decide_stall(service: &Admin, name: &str, verb: StallVerb) -> Page {
    let name = machine_name(service, name)?;
    let decided = service.decide_stall(&name, verb).await;
    decided.map_err(|error| Failure::new(service, &error))?;
    let done = match verb {
        StallVerb::Resume => Done::WritesResumed,
        StallVerb::Fail => Done::WritesFailed,
    };
    Ok(see_other(&format!("/machines/{name}"), done))
}

#[derive(serde::Deserialize)]
pub(super) struct WantedCapture {
    image: String,
    fixes: Option<String>,
}

/// Has the machine's next boot send what is on its own disks.
pub(super) async fn capture(
    service: Admin,
    Path(name): Path<String>,
    Form(wanted): Form<WantedCapture>,
) -> Page {
    let machine = machine_name(&service, &name)?;
    let wrong = |error: String| Failure::with(&service, StatusCode::UNPROCESSABLE_ENTITY, error);
    let image = wanted.image.trim().parse::<ImageName>();
    let new = NewCapture {
        image: image.map_err(|error| wrong(error.to_string()))?,
        machine: machine.clone(),
        with: None,
        order: CaptureOrder { then: CaptureEnd::Restart, disk: None, without: Vec::new() },
        note: None,
        state: VersionState::default(),
        fixes: wanted.fixes.is_some(),
    };
    service.begin_capture(new).await.map_err(|error| Failure::new(&service, &error))?;
    Ok(see_other(&format!("/machines/{machine}"), Done::CaptureOrdered))
}

/// The machine boots as usual after all.
pub(super) async fn cancel_capture(service: Admin, Path(name): Path<String>) -> Page {
    let name = machine_name(&service, &name)?;
    service.cancel_capture(&name).await.map_err(|error| Failure::new(&service, &error))?;
    Ok(see_other(&format!("/machines/{name}"), Done::CaptureCancelled))
}

/// Lets the machine's next boot stop in a rescue shell.
pub(super) async fn want_rescue(service: Admin, Path(name): Path<String>) -> Page {
    let name = machine_name(&service, &name)?;
    let wanted = service.want_rescue(&name).await;
    wanted.map_err(|error| Failure::new(&service, &error))?;
    Ok(see_other(&format!("/machines/{name}"), Done::RescueWanted))
}

/// Lets it boot as usual after all.
pub(super) async fn forget_rescue(service: Admin, Path(name): Path<String>) -> Page {
    let name = machine_name(&service, &name)?;
    let forgotten = service.forget_rescue(&name).await;
    forgotten.map_err(|error| Failure::new(&service, &error))?;
    Ok(see_other(&format!("/machines/{name}"), Done::RescueForgotten))
}

/// Asks before the machine's disk is reset.
pub(super) async fn ask_reset(service: Admin, Path(name): Path<String>) -> Page {
    ask(&service, &name, |name, _| {
        Question {
        action: "reset",
        question: format!("Reset the disk of {name}?"),
        consequence:
            "Everything it has written is lost. At its next boot it starts afresh from the newest version of \
             its image. A running machine keeps its disk until then."
                .to_owned(),
        button: "Reset the disk".to_owned(),
    }
    }).await
}

pub(super) async fn reset(service: Admin, Path(name): Path<String>) -> Page {
    set_reset(&service, &name, true).await
}

/// Takes a reset back that has not happened yet.
pub(super) async fn keep(service: Admin, Path(name): Path<String>) -> Page {
    set_reset(&service, &name, false).await
}

async fn set_reset(service: &Admin, name: &str, reset_disk: bool) -> Page {
    let name = machine_name(service, name)?;
    service.machine(&name).await.map_err(|error| Failure::new(service, &error))?;
    let change = MachineChange { reset_disk: Some(reset_disk), ..MachineChange::default() };
    let changed = service.set_machine(name.clone(), change).await;
    changed.map_err(|error| Failure::new(service, &error))?;
    let done = if reset_disk { Done::DiskReset } else { Done::DiskKept };
    Ok(see_other(&format!("/machines/{name}"), done))
}

#[derive(serde::Deserialize)]
pub(super) struct Next {
    /// Empty: what it always starts.
    choice: String,
}

/// The machine starts something else the next time, once.
pub(super) async fn set_next(
    service: Admin,
    Path(name): Path<String>,
    Form(next): Form<Next>,
) -> Page {
    let name = machine_name(&service, &name)?;
    service.machine(&name).await.map_err(|error| Failure::new(&service, &error))?;
    let choice: Option<BootChoice> = match next.choice.as_str() {
        "" => None,
        choice => {
            let parsed = choice.parse::<BootChoice>().map_err(|error| error.to_string());
            Some(parsed.map_err(|error| {
                Failure::with(&service, StatusCode::UNPROCESSABLE_ENTITY, error)
            })?)
        }
    };
    let done = if choice.is_some() { Done::NextChosen } else { Done::NextForgotten };
    let change = MachineChange { next_boot: Some(choice), ..MachineChange::default() };
    let changed = service.set_machine(name.clone(), change).await;
    changed.map_err(|error| Failure::new(&service, &error))?;
    Ok(see_other(&format!("/machines/{name}"), done))
}

pub(super) async fn remove(service: Admin, Path(name): Path<String>) -> Result<Response, Failure> {
    let name = machine_name(&service, &name)?;
    let removed = service.remove_machine(name).await;
    let removed = removed.map_err(|error| Failure::new(&service, &error))?;
    let done = match service.has_left_disk(&removed.name) {
        true => Done::RemovedDiskLater,
        false => Done::Removed,
    };
    Ok(see_other("/machines", done))
}
