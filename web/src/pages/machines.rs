//! All machines.

use super::{Done, Frame, Page, StateMark, When, render};
use crate::front::encoded;
use crate::text;
use askama::Template;
use axum::extract::Query;
use axum::http::StatusCode;
use service::{MachineView, Now, StateWord, Viewer};

/// While something boots, and while nothing does.
const REFRESH_SECONDS: (u32, u32) = (2, 15);

#[derive(serde::Deserialize)]
pub(crate) struct Filter {
    /// Only machines in this state.
    #[serde(default)]
    state: String,
    #[serde(default)]
    done: String,
}

struct Row {
    name: String,
    state: StateMark,
    image: String,
    address: String,
    last_boot: Option<When>,
    took: String,
}

#[derive(Template)]
#[template(path = "machines.html")]
struct Machines {
    frame: Frame,
    rows: Vec<Row>,
    n_machines: usize,
    filter: String,
    done: Option<&'static str>,
}

pub(crate) async fn show(service: Viewer, Query(filter): Query<Filter>) -> Page {
    let machines = service.machines().await;
    let is_passing = machines.iter().any(|view| view.state.word.is_passing());
    let seconds = if is_passing { REFRESH_SECONDS.0 } else { REFRESH_SECONDS.1 };
    let n_machines = machines.len();
    let shown =
        |view: &MachineView| filter.state.is_empty() || view.state.word.word() == filter.state;
    let now = service.now();
    let frame = Frame::new(&service, "machines", "Machines").refreshed(seconds);
    let frame = match filter.state.as_str() {
        "" => frame,
        state => frame.refreshed_with(&format!("state={}", encoded(state))),
    };
    let page = Machines {
        frame,
        rows: machines.iter().filter(|view| shown(view)).map(|view| row(view, now)).collect(),
        n_machines,
        filter: filter.state,
        done: Done::sentence(&filter.done),
    };
    Ok(render(StatusCode::OK, &page))
}

fn row(view: &MachineView, now: Now) -> Row {
    let next = match (&view.machine.image, view.next_version) {
        _ if view.machine.edit.is_some() => {
            let edit = view.machine.edit.as_ref().map(|edit| edit.choice().to_string());
            format!("changes {}", edit.unwrap_or_default())
        }
        (None, _) => "none".to_owned(),
        (Some(image), None) => format!("{image} (missing)"),
        (Some(image), Some(version)) => format!("{image} · v{version}"),
    };
    let running = view.boot.as_ref().and_then(|boot| boot.image.as_ref());
    let running = running.map(|(image, version)| format!("{image} · v{version}"));
    let image = match running {
        Some(running) if running != next && view.state.word == StateWord::Up => {
            format!("{running}; next boot {next}")
        }
        _ => next,
    };
    let took = view.took_ms().map_or_else(|| "–".to_owned(), text::duration_ms);
    Row {
        state: StateMark::from(&view.state),
        image,
        address: view.address.map_or_else(|| "–".to_owned(), |address| address.to_string()),
        last_boot: view.boot.as_ref().map(|boot| When::ms(boot.started_unix_ms, now)),
        took,
        name: view.machine.name.to_string(),
    }
}
