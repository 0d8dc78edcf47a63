//! Addresses, and who has them.

use super::{Done, Failure, Frame, Page, render, see_other};
use crate::text;
use askama::Template;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use service::{Admin, FixWish, LeaseKind, LeaseView, ReservedIn, Viewer};
use std::net::{AddrParseError, Ipv4Addr};

/// Addresses on the page: more than that are looked for by the command.
const SHOWN_MAX: usize = 500;

#[derive(serde::Deserialize)]
pub(crate) struct Options {
    /// Whether those are shown, too, whose leases have ended.
    ended: Option<String>,
    #[serde(default)]
    done: String,
}

struct Row {
    address: Ipv4Addr,
    mac: Option<String>,
    machine: Option<String>,
    host_name: String,
    by: &'static str,
    until: Option<String>,
    can_be_fixed: bool,
    is_fixed: bool,
    can_be_freed: bool,
}

#[derive(Template)]
#[template(path = "leases.html")]
struct LeasesPage {
    frame: Frame,
    done: Option<&'static str>,
    by_others: bool,
    rows: Vec<Row>,
    n_left_out: usize,
    n_ended: usize,
    shows_ended: bool,
}

impl From<LeaseView> for Row {
    fn from(it: LeaseView) -> Self {
        let is_reserved = it.reserved_in.is_some();
        let is_ours = it.kind != LeaseKind::Learned;
        Self {
            address: it.address,
            mac: it.mac.map(|mac| mac.to_string()),
            machine: it.machine.map(|name| name.to_string()),
            host_name: it.host_name.unwrap_or_default(),
            by: match (it.kind, it.reserved_in) {
                (LeaseKind::Reserved, Some(ReservedIn::File)) => "reserved in bootlace.toml",
                (LeaseKind::Reserved, _) => "fixed",
                (LeaseKind::Lease, _) => "lease",
                (LeaseKind::Learned, _) => "another DHCP server",
                (LeaseKind::Declined, _) => "declined: in use by somebody",
                (LeaseKind::Ended, _) => "ended",
            },
            until: it.ends_unix.map(|unix| text::exact(unix.saturating_mul(1000))),
            can_be_fixed: it.mac.is_some()
                && !is_reserved
                && is_ours
                && it.kind != LeaseKind::Declined,
            is_fixed: it.reserved_in == Some(ReservedIn::State),
            // What a machine runs with is freed by who knows what he does.
            can_be_freed: !is_reserved && !it.is_in_use,
        }
    }
}

pub(crate) async fn show(viewer: Viewer, Query(options): Query<Options>) -> Page {
    let mut all = viewer.leases().await.map_err(|error| Failure::new(&viewer, &error))?;
    let by_others = all.iter().any(|it| it.kind == LeaseKind::Learned);
    let n_all = all.len();
    let shows_ended = options.ended.is_some();
    all.retain(|it| shows_ended || it.kind != LeaseKind::Ended);
    let n_ended = n_all - all.len();
    let n_left_out = all.len().saturating_sub(SHOWN_MAX);
    all.truncate(SHOWN_MAX);
    let page = LeasesPage {
        frame: Frame::new(&viewer, "leases", "Addresses"),
        done: Done::sentence(&options.done),
        by_others,
        rows: all.into_iter().map(Row::from).collect(),
        n_left_out,
        n_ended,
        shows_ended,
    };
    Ok(render(StatusCode::OK, &page))
}

pub(crate) async fn free(admin: Admin, Path(address): Path<String>) -> Page {
    let address = parsed(&admin, &address)?;
    let freed = admin.free_lease(address).await;
    freed.map_err(|error| Failure::new(&admin, &error))?;
    Ok(see_other("/leases", Done::AddressFreed))
}

pub(crate) async fn fix(admin: Admin, Path(address): Path<String>) -> Page {
    let address = parsed(&admin, &address)?;
    let fixed = admin.fix_address(address, FixWish::default()).await;
    fixed.map_err(|error| Failure::new(&admin, &error))?;
    Ok(see_other("/leases", Done::AddressFixed))
}

pub(crate) async fn unfix(admin: Admin, Path(address): Path<String>) -> Page {
    let address = parsed(&admin, &address)?;
    let undone = admin.unfix_address(address).await;
    undone.map_err(|error| Failure::new(&admin, &error))?;
    Ok(see_other("/leases", Done::AddressNotFixed))
}

fn parsed(viewer: &Viewer, address: &str) -> Result<Ipv4Addr, Failure> {
    address.parse().map_err(|_: AddrParseError| {
        let detail = "That is no IPv4 address.".to_owned();
        Failure::with(viewer, StatusCode::NOT_FOUND, detail)
    })
}
