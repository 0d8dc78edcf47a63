//! What is there.

use super::{FarError, Place};
use hyper::Method;
use model::{ImageName, ImageVersion, VersionState};
use tokio::runtime::Runtime;

/// A version there.
#[derive(serde::Deserialize)]
pub(crate) struct Listed {
    #[serde(flatten)]
    pub(crate) version: ImageVersion,
    #[serde(default)]
    pub(crate) state: VersionState,
}

/// All versions there.
pub(crate) fn versions(runtime: &Runtime, place: &Place) -> Result<Vec<Listed>, FarError> {
    runtime.block_on(place.just(Method::GET, "/api/v1/images"))
}

/// Removes a version there, unless somebody needs it.
pub(crate) fn remove(
    runtime: &Runtime,
    place: &Place,
    image: &ImageName,
    number: u32,
) -> Result<(), FarError> {
    let path = format!("/api/v1/images/{image}/{number}");
    let removed = place.just::<serde_json::Value>(Method::DELETE, &path);
    runtime.block_on(removed).map(|_| ())
}
