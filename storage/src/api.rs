//! The storage API: HTTP with JSON on a Unix socket that only root may open.

use crate::config::Who;
use crate::descriptors;
use crate::error::Error;
use crate::failure::{Failure, blocking};
use crate::nbd_server::Counts;
use crate::table::Exports;
use axum::extract::{Extension, Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use model::{
    Admit, Descriptors, DiskId, DiskMeant, DiskReport, ExportOrder, ExportStatus, KeptDisk,
    NbdRefusals, Space, StallVerb,
};
use socket2::Socket;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;

/// How long requests may take to end when the server stops.
const STOP_TIME: Duration = Duration::from_secs(5);

pub(crate) struct Api {
    listener: UnixListener,
}

impl Api {
    /// Listens on `path`. A socket that nobody listens on is a leftover and is replaced.
    pub(crate) fn bind(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Socket { path: path.into(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            let text = "another storage server listens there; stop it first";
            return Err(failed(std::io::Error::new(std::io::ErrorKind::AddrInUse, text)));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let owner_only = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, owner_only).map_err(failed)?;
        Ok(Self { listener })
    }

    /// Answers on a socket that listens already.
    pub(crate) fn handed(socket: Socket) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(socket.into())? })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Answers until `stop` is done, and then for as long as requests take, but not for ever.
    pub(crate) async fn serve(
        self,
        exports: Arc<Exports>,
        counts: Arc<Counts>,
        who: Who,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let router = Router::new()
            .route("/v1/health", get(|who: Extension<Who>| async move { Json(who.health()) }))
            .layer(Extension(who))
            .route("/v1/descriptors", get(about_descriptors))
            .route("/v1/nbd", get(about_nbd))
            .layer(Extension(counts))
            .route("/v1/exports", get(list))
            .route("/v1/space", get(space))
            .route("/v1/exports/{disk}", put(prepare))
            .route("/v1/exports/{disk}/admit", post(admit))
            .route("/v1/exports/{disk}/stall", post(decide_stall))
            .route("/v1/disks", get(disks))
            .route("/v1/place", get(place))
            .route("/v1/disks/{disk}", get(kept_disk).delete(reset))
            .route("/v1/disks/{disk}/delete", post(delete_meant))
            .merge(crate::snapshot_api::router())
            .with_state(exports);
        let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
        let stop = async move {
            stop.await;
            drop(stopping);
        };
        let serve = axum::serve(self.listener, router).with_graceful_shutdown(stop);
        let overdue = async {
            let _ = stopped.await;
            tokio::time::sleep(STOP_TIME).await;
        };
        tokio::select! {
            served = serve.into_future() => served,
            () = overdue => Ok(()),
        }
    }
}

/// How many descriptors the server may have, and whom it has refused for lack of them.
async fn about_descriptors(counts: Extension<Arc<Counts>>) -> Json<Descriptors> {
    let refused_connections = counts.no_descriptor.total();
    Json(Descriptors { limit: descriptors::limit(), refused_connections })
}

/// Whom the server could not serve over NBD, and who could not prove that a disk is his.
async fn about_nbd(
    State(exports): State<Arc<Exports>>,
    counts: Extension<Arc<Counts>>,
) -> Json<NbdRefusals> {
    Json(NbdRefusals {
        refused_connections: counts.too_many.total(),
        short_of_memory: counts.n_short_of_memory(),
        let_go: counts.let_go.list(),
        not_proven: exports.not_proven(),
    })
}

async fn list(State(exports): State<Arc<Exports>>) -> Result<Json<Vec<ExportStatus>>, Failure> {
    blocking(move || Ok(exports.list())).await.map(Json)
}

async fn space(State(exports): State<Arc<Exports>>) -> Result<Json<Space>, Failure> {
    blocking(move || exports.space()).await.map(Json)
}

async fn prepare(
    State(exports): State<Arc<Exports>>,
    UrlPath(disk): UrlPath<DiskId>,
    Json(order): Json<ExportOrder>,
) -> Result<Json<ExportStatus>, Failure> {
    if order.spec.disk != disk {
        let text = format!("the path names {disk}, the body {}", order.spec.disk);
        return Err(Failure { status: StatusCode::BAD_REQUEST, text });
    }
    blocking(move || exports.prepare(order)).await.map(Json)
}

async fn admit(
    State(exports): State<Arc<Exports>>,
    UrlPath(disk): UrlPath<DiskId>,
    Json(Admit { boot, identity }): Json<Admit>,
) -> Result<Json<ExportStatus>, Failure> {
    blocking(move || exports.admit_proven(&disk, boot, identity)).await.map(Json)
}

async fn decide_stall(
    State(exports): State<Arc<Exports>>,
    UrlPath(disk): UrlPath<DiskId>,
    Json(verb): Json<StallVerb>,
) -> Result<Json<u32>, Failure> {
    blocking(move || exports.decide_stall(&disk, verb)).await.map(Json)
}

async fn disks(State(exports): State<Arc<Exports>>) -> Result<Json<Vec<DiskReport>>, Failure> {
    blocking(move || exports.disks()).await.map(Json)
}

async fn place(State(exports): State<Arc<Exports>>) -> Result<Json<Option<String>>, Failure> {
    blocking(move || Ok(exports.place_trouble())).await.map(Json)
}

async fn kept_disk(
    State(exports): State<Arc<Exports>>,
    UrlPath(disk): UrlPath<DiskId>,
) -> Result<Json<Option<KeptDisk>>, Failure> {
    blocking(move || exports.kept_disk(&disk)).await.map(Json)
}

async fn reset(
    State(exports): State<Arc<Exports>>,
    UrlPath(disk): UrlPath<DiskId>,
) -> Result<StatusCode, Failure> {
    blocking(move || exports.reset(&disk, None)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// As [`reset`], by who says which disk he means: an earlier server does not know the path, and so deletes no other one.
async fn delete_meant(
    State(exports): State<Arc<Exports>>,
    UrlPath(disk): UrlPath<DiskId>,
    Json(meant): Json<DiskMeant>,
) -> Result<StatusCode, Failure> {
    blocking(move || exports.reset(&disk, Some(&meant))).await?;
    Ok(StatusCode::NO_CONTENT)
}
