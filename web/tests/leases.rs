//! Addresses on their page and in the API.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use model::Lease;
use service::{LeasedNetwork, Leasing, Options, Service};
use std::net::Ipv4Addr;
use tower::ServiceExt as _;
use web::LocalAdmin;
use wire::Mac;

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

struct Site {
    service: Service,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let leasing = Leasing::Ours(vec![LeasedNetwork {
            subnet: ip(0),
            prefix: 24,
            server: ip(1),
            router: None,
            pool: (ip(100), ip(199)),
            reserved: Default::default(),
        }]);
        let options = Options { init: None, leasing, ..Options::under(folder.path()) };
        let service = Service::open(options).unwrap();
        let expires_unix = service.lease_clock_unix() + 600;
        let host_name = Some("<b>pc</b>".to_owned());
        let lease = Lease { mac: MAC, address: ip(101), expires_unix, host_name };
        service.commit_lease(lease).await.unwrap();
        Self { service, _folder: folder }
    }

    async fn ask(&self, method: &str, path: &str, body: String) -> (StatusCode, String) {
        let kind = match path.starts_with("/api/") {
            true => "application/json",
            false => "application/x-www-form-urlencoded",
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body))
            .unwrap();
        request.extensions_mut().insert(LocalAdmin { uid: 0 });
        let response = web::router(self.service.clone(), &[]).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

#[tokio::test]
async fn an_address_is_fixed_and_freed_on_its_page() {
    let site = Site::new().await;
    let page = async || site.ask("GET", "/leases", String::new()).await.1;
    let shown = page().await;
    assert!(shown.contains("10.77.0.101") && shown.contains("52:54:00:00:00:01"), "{shown}");
    assert!(!shown.contains("<b>pc</b>"), "what a client calls itself is no markup");
    let post = async |what: &str| {
        site.ask("POST", &format!("/leases/10.77.0.101/{what}"), String::new()).await.0
    };
    assert_eq!(post("fix").await, StatusCode::SEE_OTHER);
    let shown = page().await;
    assert!(shown.contains("Fix no more") && !shown.contains("/free\""), "{shown}");
    assert_eq!(post("free").await, StatusCode::CONFLICT);
    assert_eq!(post("unfix").await, StatusCode::SEE_OTHER);
    assert_eq!(post("free").await, StatusCode::SEE_OTHER);
    assert!(page().await.contains("Nobody has an address yet"));
    assert_eq!(post("free").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_largest_list_of_leases_is_taken_and_half_of_one_is_not() {
    let site = Site::new().await;
    let lease = |n: u32| {
        let [a, b] = [n / 256 % 256, n % 256];
        let address = ip(u8::try_from(100 + n % 100).unwrap());
        format!(
            r#"{{"line":{n},"mac":"02:00:00:00:{a:02x}:{b:02x}","address":"{address}","ends_unix":null}}"#
        )
    };
    let all: Vec<String> = (0..15_000).map(lease).collect();
    let body = format!(r#"{{"leases":[{}]}}"#, all.join(","));
    let (status, told) = site.ask("POST", "/api/v1/leases", body.clone()).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["n_taken"], 99);
    let (_, listed) = site.ask("GET", "/api/v1/leases", String::new()).await;
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.len(), 100);
    assert_eq!(listed[1]["mac"], "52:54:00:00:00:01", "it had its address before");
    for body in [&body[..body.len() - 2], "{}", r#"{"leases":[{"mac":"x"}]}"#] {
        let (status, told) = site.ask("POST", "/api/v1/leases", body.to_owned()).await;
        assert!(status.is_client_error(), "{told}");
    }
}
