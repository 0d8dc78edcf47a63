//! Addresses in the JSON API.

use super::{Answer, Body};
use crate::front::Front;
use crate::problem::limited;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::routing::{delete, get, put};
use axum::{Json, Router};
use service::{Admin, FixWish, Fixed, Freed, ImportedLease, ImportedLeases, LeaseView, Viewer};
use std::net::Ipv4Addr;
use wire::Mac;

/// Longest list of another server's leases: all that are taken at once, with names of any length.
const LEASES_BYTES_MAX: usize = 16 << 20;

type AddressPath = Result<Path<Ipv4Addr>, PathRejection>;

pub(super) fn router() -> Router<Front> {
    let router = Router::new()
        .route("/leases", get(leases).post(import))
        .route("/leases/{address}", delete(free))
        .route("/leases/{address}/fixed", put(fix).delete(unfix));
    limited(router, LEASES_BYTES_MAX)
}

async fn leases(service: Viewer) -> Answer<Json<Vec<LeaseView>>> {
    Ok(Json(service.leases().await?))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Import {
    leases: Vec<ImportedLease>,
    /// Only say what would become of them.
    #[serde(default)]
    dry_run: bool,
}

/// Takes leases of another server, all that can be in one go.
async fn import(admin: Admin, body: Body<Import>) -> Answer<Json<ImportedLeases>> {
    let Json(Import { leases, dry_run }) = body?;
    Ok(Json(admin.import_leases(leases, dry_run).await?))
}

/// Ends a lease, or the rest of a declined address.
async fn free(admin: Admin, address: AddressPath) -> Answer<Json<Freed>> {
    let Path(address) = address?;
    Ok(Json(admin.free_lease(address).await?))
}

/// Fixes an address for a card.
async fn fix(admin: Admin, address: AddressPath, body: Body<FixWish>) -> Answer<Json<Fixed>> {
    let (Path(address), Json(body)) = (address?, body?);
    Ok(Json(admin.fix_address(address, body).await?))
}

/// Takes that back; answers whose it was.
async fn unfix(admin: Admin, address: AddressPath) -> Answer<Json<Mac>> {
    let Path(address) = address?;
    Ok(Json(admin.unfix_address(address).await?))
}
