//! The site at a glance.

use super::findings::{FindingLine, lines};
use super::{Frame, Page, render};
use crate::text;
use askama::Template;
use axum::http::StatusCode;
use service::{StateWord, Viewer};

/// The page is loaded again, so that it can hang on a wall.
const REFRESH_SECONDS: u32 = 5;

struct Count {
    n: usize,
    glyph: &'static str,
    word: &'static str,
    class: &'static str,
}

struct Tile {
    name: String,
    glyph: &'static str,
    class: &'static str,
    line: String,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    n_machines: usize,
    n_images: usize,
    discovered: String,
    counts: Vec<Count>,
    space: String,
    pool: String,
    findings: Vec<FindingLine>,
    n_findings_left_out: usize,
    tiles: Vec<Tile>,
}

pub(crate) async fn show(service: Viewer) -> Page {
    let status = service.status().await;
    let now = service.now();
    let counts = StateWord::ALL
        .into_iter()
        .filter_map(|word| {
            let n = *status.machines.get(&word)?;
            Some(Count { n, glyph: text::glyph(word), word: word.word(), class: text::class(word) })
        })
        .collect();
    let tiles = service
        .machines()
        .await
        .into_iter()
        .map(|view| Tile {
            name: view.machine.name.to_string(),
            glyph: text::glyph(view.state.word),
            class: text::class(view.state.word),
            line: match (&view.boot, view.state.word) {
                (Some(boot), StateWord::Up) => {
                    let image = boot.image.as_ref().map_or("up", |(image, _)| image.as_str());
                    match view.took_ms() {
                        Some(took_ms) => format!("{image} · {}", text::duration_ms(took_ms)),
                        None => image.to_owned(),
                    }
                }
                (Some(boot), StateWord::Loading | StateWord::Starting) => boot
                    .current()
                    .map_or("firmware is asking", |event| event.stage.title())
                    .to_owned(),
                (_, word) => word.word().to_owned(),
            },
        })
        .collect();
    let page = Overview {
        frame: Frame::new(&service, "overview", "Overview").refreshed(REFRESH_SECONDS),
        n_machines: status.n_machines,
        n_images: status.n_image_versions,
        discovered: text::count(
            status.n_discovered as u64,
            "new PC is waiting",
            "new PCs are waiting",
        ),
        counts,
        space: status.space.map_or_else(String::new, |space| {
            let (free, total) = (text::bytes(space.free_bytes), text::bytes(space.total_bytes));
            format!("The storage server has {free} of {total} free.")
        }),
        pool: status.pool.map_or_else(String::new, |pool| {
            let left_out = match pool.n_left_out {
                0 => String::new(),
                1 => " A device that does not boot from the network wants one and gets none (serve_everyone).".to_owned(),
                n => format!(
                    " {n} devices that don't boot from the network want one and get none (serve_everyone)."
                ),
            };
            format!(
                "{} of {} addresses are the machines', {} other PCs' (at most {}).{left_out}",
                pool.n_machines, pool.n_addresses, pool.n_strangers, pool.n_strangers_max
            )
        }),
        findings: lines(&status.findings, now),
        n_findings_left_out: status.n_findings_left_out,
        tiles,
    };
    Ok(render(StatusCode::OK, &page))
}
