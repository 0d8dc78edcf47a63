//! The secret of a boot that attaches its disk over TLS: what came over the plain network is exchanged.

use super::disks::start_storage;
use super::*;
use initcfg::HostConfig;

pub(super) async fn lab(folder: &Path) -> (Service, disks::Asked) {
    add_image(folder, "debian-12", 1);
    let options = Options { nbd_ca: Some(b"authority".to_vec()), ..options(folder) };
    let service = Service::open(options).unwrap();
    let asked = start_storage(folder);
    let image = Some("debian-12".parse().unwrap());
    adopt(&service, MAC, "lab-07".parse().unwrap(), image).await.unwrap();
    pretend_initrds(&service);
    lease(&service, MAC, ADDRESS).await;
    (service, asked)
}

#[tokio::test]
async fn what_counts_is_told_inside_of_tls_only() {
    let folder = tempfile::tempdir().unwrap();
    let (service, asked) = lab(folder.path()).await;
    let boot = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(screen(&service).await, "");
    let file = service.new_host_file(ADDRESS, OWN, boot).await.unwrap().unwrap();
    let plain = HostConfig::parse(file.as_bytes()).unwrap();
    assert_eq!(plain.ssh, None);
    let last = || asked.lock().unwrap().last().cloned().unwrap();
    let order = last();
    assert_eq!(order.key, Some(plain.token.disk_key()));
    let exchange = order.exchange.unwrap();
    let told = HostConfig::parse(exchange.text.as_bytes()).unwrap();
    assert!(told.ssh.is_some() && told.boot == boot);
    let secret = plain.token.mixed(&told.token);
    assert_eq!(exchange.key, secret.disk_key());
    for known in [plain.token, told.token, secret] {
        assert!(!file.contains(&secret.to_hex()) && !exchange.text.contains(&secret.to_hex()));
        assert_eq!(file.contains(&known.to_hex()), known == plain.token);
    }
    // The loader asks for its configuration again, or somebody does in its name.
    assert_eq!(screen(&service).await, "");
    assert_eq!(last().exchange, Some(exchange));

    // A server that starts in between knows both.
    let service = Service::open(service.options().clone()).unwrap();
    pretend_initrds(&service);
    let line = b"report";
    assert!(service.believes(MAC, boot, line, Some(secret.tag(line))).await);
    service.database().write(|_| Ok(())).await.unwrap();
    assert!(!service.believes(MAC, boot, line, Some(plain.token.tag(line))).await);
    assert!(!service.believes(MAC, boot, line, None).await);
    assert!(service.believes(MAC, boot, line, Some(secret.tag(line))).await);
    assert_eq!(screen(&service).await, "");
    assert_eq!((last().key, last().exchange), (Some(secret.disk_key()), None));
}

#[tokio::test]
async fn each_copy_of_the_segment_is_exchanged_for_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let (service, asked) = lab(folder.path()).await;
    let boot = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(screen(&service).await, "");
    let mut told = Vec::new();
    for _ in 0..2 {
        service.new_host_file(ADDRESS, OWN, boot).await.unwrap().unwrap();
        let order = asked.lock().unwrap().last().cloned().unwrap();
        told.push(order.exchange.unwrap());
    }
    assert_ne!(told[0].text, told[1].text);
}
