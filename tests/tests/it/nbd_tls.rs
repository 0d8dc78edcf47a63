//! `bootlace share` over TLS, with the NBD clients of others.

#![expect(clippy::unwrap_used, reason = "a test that can not be set up must fail")]

use lab::{Authority, Daemon, Need, bootlace_binary, require, text_of};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A shared file of 32 MiB. In its folder: certificate and key of the server, and the authority's
/// and a client's certificate in `client`.
struct Shared {
    daemon: Daemon,
    folder: TempDir,
    authority: Authority,
}

impl Shared {
    /// With `--tls-client-ca`, if `asks` for certificates.
    fn start(asks: bool, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        File::create(path("disk")).unwrap().set_len(32 * MIB).unwrap();
        let authority = Authority::new("the office").unwrap();
        authority.issue(folder.path(), "server").unwrap();
        authority.trust(&path("client")).unwrap();
        authority.issue(&path("client"), "client").unwrap();
        let mut command = Command::new(bootlace_binary().unwrap());
        command.arg("share").arg(path("disk")).args(["--name", "lab", "--nbd", "127.0.0.1:0"]);
        command.arg("--nbd-unix").arg(path("socket")).args(options);
        command.arg("--tls-cert").arg(path("server-cert.pem"));
        command.arg("--tls-key").arg(path("server-key.pem"));
        if asks {
            command.arg("--tls-client-ca").arg(path("client/ca-cert.pem"));
        }
        command.env("BOOTLACE_LOG", "info");
        let log = path("log");
        let mut daemon = Daemon::start_detached("bootlace share", &mut command, &log).unwrap();
        daemon.wait_for_log("nbds+unix:///lab", Duration::from_secs(20)).unwrap();
        Self { daemon, folder, authority }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn line(&self, scheme: &str) -> String {
        let log = self.daemon.log();
        log.lines().find(|line| line.starts_with(scheme)).unwrap().to_owned()
    }

    /// URI over TCP for a client with the certificates in that folder.
    fn uri(&self, certificates: &str) -> String {
        let uri = self.line("nbds://");
        format!("{uri}?tls-certificates={}", self.path(certificates).display())
    }

    fn unix_uri(&self) -> String {
        let uri = self.line("nbds+unix://");
        format!("{uri}&tls-certificates={}", self.path("client").display())
    }

    /// The TCP port.
    fn port(&self) -> String {
        self.line("nbds://").trim_end_matches("/lab").rsplit(':').next().unwrap().to_owned()
    }
}

fn ok(program: &str, arguments: &[&str]) -> String {
    text_of(Command::new(program).args(arguments)).unwrap()
}

/// What a program says that must fail.
fn fails(program: &str, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(!status.success(), "{program} {arguments:?}: {said}");
    said
}

fn programs(test: &str, names: &[&'static str]) -> bool {
    let needs: Vec<Need> = names.iter().map(|name| Need::Program(name)).collect();
    require(test, &needs)
}

/// Random enough that no block is like another.
fn image(path: &Path) -> String {
    let bytes: Vec<u8> = (0..32 * MIB).map(|at| (at / 512 * 7 + at % 251) as u8).collect();
    std::fs::write(path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_libnbd_writes_over_tls_it_reads_again() {
    let test = "what_libnbd_writes_over_tls_it_reads_again";
    if !programs(test, &["nbdinfo", "nbdcopy", "cmp"]) {
        return;
    }
    let shared = Shared::start(true, &[]);
    let image = image(&shared.path("image"));
    let copy = shared.path("copy").to_str().unwrap().to_owned();
    for uri in [shared.uri("client"), shared.unix_uri()] {
        let info = ok("nbdinfo", &["--json", &uri]);
        assert!(info.contains("\"TLS\": true") && info.contains("base:allocation"), "{info}");
        ok("nbdcopy", &["--connections=4", "--requests=32", &image, &uri]);
        let large = "--request-size=2097152";
        ok("nbdcopy", &["--connections=4", "--requests=64", large, &uri, &copy]);
        ok("cmp", &[&image, &copy]);
    }
}

/// What qemu's tools need to open the share over TLS.
fn qemu(shared: &Shared, certificates: &str) -> [String; 3] {
    let folder = shared.path(certificates);
    [
        "--object".to_owned(),
        format!("tls-creds-x509,id=t,dir={},endpoint=client", folder.display()),
        format!("driver=nbd,host=localhost,port={},export=lab,tls-creds=t", shared.port()),
    ]
}

#[test]
fn qemu_finds_over_tls_what_it_wrote() {
    if !programs("qemu_finds_over_tls_what_it_wrote", &["qemu-io", "qemu-img"]) {
        return;
    }
    let shared = Shared::start(true, &[]);
    let [object, credentials, place] = qemu(&shared, "client");
    let image = image(&shared.path("image"));
    let opened = ["--image-opts", &object, &credentials];
    ok(
        "qemu-img",
        &[&["convert", "-n", "-f", "raw"], &opened[1..], &["--target-image-opts", &image, &place]]
            .concat(),
    );
    let wanted = format!("driver=raw,file.driver=file,file.filename={image}");
    ok("qemu-img", &[&["compare"], &opened[..], &[&wanted, &place]].concat());
    let mut arguments = opened.to_vec();
    for command in [
        "write -P 0xaa 0 1M",
        "write -z -u 0 64k",
        "read -P 0 0 64k",
        "read -P 0xaa 64k 960k",
        "discard 1M 1M",
        "read -P 0 1M 1M",
        "write -f -P 1 5M 4k",
        "write -P 3 8M 20M",
        "read -P 3 8M 20M",
        "flush",
    ] {
        arguments.extend(["-c", command]);
    }
    arguments.push(&place);
    let said = ok("qemu-io", &arguments);
    assert!(!said.contains("failed") && !said.contains("error"), "{said}");
}

#[test]
fn a_client_without_tls_is_refused_in_words_or_served_as_the_share_says() {
    let test = "a_client_without_tls_is_refused_in_words_or_served_as_the_share_says";
    if !programs(test, &["nbdinfo", "qemu-img"]) {
        return;
    }
    let shared = Shared::start(false, &[]);
    assert!(!shared.daemon.log().contains("nbd://"), "the URI that does not work is not shown");
    let plain = shared.line("nbds://").replace("nbds", "nbd");
    let said = fails("qemu-img", &["info", &plain]);
    assert!(said.contains("serves only clients that use TLS"), "{said}");
    fails("nbdinfo", &[&plain]);
    let list = fails("nbdinfo", &["--list", &plain.replace("/lab", "/")]);
    assert!(!list.contains("export="), "{list}");
    ok("nbdinfo", &[&shared.uri("client")]);

    let shared = Shared::start(true, &["--tls", "optional"]);
    for uri in [shared.line("nbd://"), shared.line("nbd+unix://")] {
        ok("nbdinfo", &[&uri]);
    }
    ok("nbdinfo", &[&shared.uri("client")]);
}

#[test]
fn certificates_of_strangers_are_refused() {
    if !programs("certificates_of_strangers_are_refused", &["nbdinfo", "qemu-img"]) {
        return;
    }
    let mut shared = Shared::start(true, &[]);
    let others = Authority::new("the office").unwrap();
    // Trusts the server, but has the certificate of an authority that only bears the same name; has
    // none; trusts the other.
    shared.authority.trust(&shared.path("stranger")).unwrap();
    others.issue(&shared.path("stranger"), "client").unwrap();
    shared.authority.trust(&shared.path("nobody")).unwrap();
    others.trust(&shared.path("wary")).unwrap();
    shared.authority.issue(&shared.path("wary"), "client").unwrap();
    for (who, log) in [
        ("stranger", "TLS failed: invalid peer certificate"),
        ("nobody", "peer sent no certificates"),
        ("wary", "does it trust the certificate"),
    ] {
        fails("nbdinfo", &[&shared.uri(who)]);
        let [object, credentials, place] = qemu(&shared, who);
        fails("qemu-img", &["info", "--image-opts", &object, &credentials, &place]);
        shared.daemon.wait_for_log(log, Duration::from_secs(5)).unwrap();
    }
    ok("nbdinfo", &[&shared.uri("client")]);
}

#[test]
fn a_renewed_certificate_is_used_for_the_next_client() {
    if !programs("a_renewed_certificate_is_used_for_the_next_client", &["nbdinfo"]) {
        return;
    }
    let mut shared = Shared::start(false, &[]);
    let new = Authority::new("the new office").unwrap();
    new.trust(&shared.path("renewed")).unwrap();
    new.issue(&shared.path("next"), "server").unwrap();
    fails("nbdinfo", &[&shared.uri("renewed")]);
    let replace = |name: &str| std::fs::rename(shared.path("next").join(name), shared.path(name));
    replace("server-cert.pem").unwrap();
    // Between the two renames the former pair serves on.
    ok("nbdinfo", &[&shared.uri("client")]);
    replace("server-key.pem").unwrap();
    ok("nbdinfo", &[&shared.uri("renewed")]);
    fails("nbdinfo", &[&shared.uri("client")]);
    shared.daemon.wait_for_log("the former TLS certificate stays", Duration::from_secs(5)).unwrap();
}
