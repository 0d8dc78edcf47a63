//! The storage API as the boot server uses it, and as it should not.

use crate::lan::CLIENT_MAC;
use crate::server::{Server, spec};
use model::{KeptDisk, StorageHealth, StorageStarter};

#[test]
fn refusals_say_why() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let _running = server.attach("lab-01");
    let good = spec("lab-02", "nbd", "127.0.0.2", CLIENT_MAC, 1, "discard");
    let check = |machine: &str, body: &str, status: u16, text: &str| {
        let reply = server.ask("PUT", &format!("/v1/exports/{machine}"), body);
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
        assert!(reply.contains(text), "{reply}");
    };
    check("lab-02", &good.replace("debian-12", "fedora"), 404, "fedora");
    check("lab-02", &good.replace("\"1.2\"", "\"1.1\""), 409, "1.1 is still in use by lab-01");
    check("lab-03", &good, 400, "the path names lab-03, the body lab-02");
    check("lab-02", "{", 400, "");
    check("lab-02", &good.replace("\"boot\"", "\"boots\""), 422, "missing field `boot`");
    check("lab-02", &good.replace("{", "{\"boots\":7,"), 422, "boots");
    check("lab-02", &good.replace("{", "{\"key\":\"07\","), 422, "64 hexadecimal digits");
    check("..%2f..", &good, 400, "");
    let exports = server.exports();
    assert!(exports.contains("lab-01") && !exports.contains("lab-02"), "{exports}");
}

#[test]
fn a_disk_that_is_thrown_away_is_gone_for_good() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let health = server.ask("GET", "/v1/health", "");
    let body = health.split("\r\n\r\n").last().unwrap();
    let health: StorageHealth = serde_json::from_str(body).unwrap();
    assert_eq!((health.status.as_str(), health.pid), ("ok", Some(std::process::id())));
    assert_eq!(health.started_by, Some(StorageStarter::Service));
    let kept = |server: &Server| server.ask("GET", "/v1/disks/lab-01", "");
    assert!(kept(&server).ends_with("null"), "{}", kept(&server));
    server.prepare("lab-01", "127.0.0.1", 2, "persistent");
    server.attach("lab-01");
    let told = kept(&server);
    let disk: KeptDisk = serde_json::from_str(told.split("\r\n\r\n").last().unwrap()).unwrap();
    assert_eq!((disk.image.as_str(), disk.version), ("debian-12", 1));
    assert_eq!(disk.id.unwrap().len(), 32);
    for _ in 0..2 {
        let gone = server.ask("DELETE", "/v1/disks/lab-01", "");
        assert!(gone.starts_with("HTTP/1.1 204"), "{gone}");
    }
    assert!(kept(&server).ends_with("null"), "{}", kept(&server));
    let server = server.restart();
    assert!(server.exports().ends_with("[]"), "{}", server.exports());
    assert!(kept(&server).ends_with("null"), "{}", kept(&server));
}

/// The layer of a former boot must not come back with a restart when the new one could not be made.
#[test]
fn a_boot_that_could_not_begin_ends_the_former_all_the_same() {
    let server = Server::start();
    server.prepare("lab-01", "127.0.0.1", 1, "discard");
    let next = spec("lab-01", "nbd", "127.0.0.1", CLIENT_MAC, 2, "discard");
    let reply = server.ask("PUT", "/v1/exports/lab-01", &next.replace("debian-12", "fedora"));
    assert!(reply.starts_with("HTTP/1.1 404"), "{reply}");
    let server = server.restart();
    assert!(server.exports().ends_with("[]"), "{}", server.exports());
}
