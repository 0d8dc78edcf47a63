//! TFTP as other people's clients see it.

use anyhow::{Context, Result, ensure};
use fakeclient::tftp_crowd::{Fetch, Fetched, fetch_all};
use lab::{Client, Lan, Need, SERVER, Site, require, text_of};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// A loader: a file of some hundred kilobytes that every site has.
const FILE: &str = "bl.efi";

/// A client program that fetches the file into the current folder as `got`.
fn fetch(client: &Client, words: &str, folder: &Path) -> Result<Vec<u8>> {
    let got = folder.join("got");
    let _ = std::fs::remove_file(&got);
    text_of(&mut command(client, words, folder)).with_context(|| format!("{words} fails"))?;
    std::fs::read(&got).with_context(|| format!("{words} fetches nothing"))
}

fn command(client: &Client, words: &str, folder: &Path) -> Command {
    // tftp-hpa and atftp don't fail when they are refused, and would ask for ever.
    let mut command = client.command("timeout");
    command.args(["30", "sh", "-c", words]).current_dir(folder);
    command
}

fn on_a_lan(
    name: &str,
    programs: &[&'static str],
    test: impl FnOnce(&Client, &Path) -> Result<()>,
) {
    let needs: Vec<Need> = [Need::Root, Need::Program("grub-mkimage")]
        .into_iter()
        .chain(programs.iter().copied().map(Need::Program))
        .collect();
    if !require(name, &needs) {
        return;
    }
    let run = || -> Result<()> {
        let site = Site::builder().verbose().create(Lan::lay(name)?)?;
        let servers = site.up()?;
        let client = site.lan().add_client(name, "52:54:00:00:00:01")?;
        client.netns().ip("addr add 10.77.0.50/24 dev eth0")?;
        let folder = tempfile::tempdir()?;
        test(&client, folder.path())
            .with_context(|| format!("the servers' log:\n{}", servers.log()))?;
        drop(client);
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn all_clients_get_the_same_bytes() {
    on_a_lan("clients", &["tftp", "atftp", "curl", "busybox"], |client, folder| {
        let curl = format!("curl -sS tftp://{SERVER}/{FILE} -o got");
        let expected = fetch(client, &curl, folder)?;
        ensure!(expected.len() > 50_000, "{FILE} has only {} bytes", expected.len());
        for words in [
            format!("curl -sS --tftp-blksize 1468 tftp://{SERVER}//{FILE} -o got"),
            format!("curl -sS --tftp-no-options tftp://{SERVER}/{FILE} -o got"),
            format!("tftp -m binary {SERVER} -c get /{FILE} got"),
            format!("busybox tftp -g -b 1428 -r {FILE} -l got {SERVER}"),
            format!("atftp --option 'blksize 1428' -g -r {FILE} -l got {SERVER}"),
            format!(
                "atftp --option 'blksize 8192' --option 'windowsize 4' -g -r {FILE} -l got {SERVER}"
            ),
            format!(
                "atftp --option 'blksize 1428' --option 'windowsize 64' -g -r {FILE} -l got {SERVER}"
            ),
        ] {
            let got = fetch(client, &words, folder)?;
            ensure!(got == expected, "{words} gets {} bytes of {}", got.len(), expected.len());
        }
        Ok(())
    });
}

#[test]
fn what_is_not_there_is_refused_at_once() {
    on_a_lan("refused", &["tftp", "curl"], |client, folder| {
        std::fs::write(folder.join("mine"), "mine")?;
        for (words, expected) in [
            ("get nothing-here", "file not found"),
            ("get ../../etc/passwd", "bad file name"),
            ("get /etc/passwd", "file not found"),
            ("get ..\\\\..\\\\etc\\\\passwd", "bad file name"),
            ("put mine", "only sends files"),
        ] {
            let start = Instant::now();
            let said =
                text_of(&mut command(client, &format!("tftp {SERVER} -c {words} 2>&1"), folder));
            let said = said.unwrap_or_else(|error| error.to_string());
            ensure!(said.contains(expected), "{words}: {said:?}, not {expected:?}");
            let took = start.elapsed();
            ensure!(took < Duration::from_secs(4), "{words}: refused after {took:?}");
        }
        Ok(())
    });
}

#[test]
fn every_client_is_told_what_it_is_refused_for() {
    on_a_lan("told", &["atftp", "curl", "busybox"], |client, folder| {
        std::fs::write(folder.join("mine"), "mine")?;
        let (tftp, http) = (format!("tftp://{SERVER}"), format!("http://{SERVER}"));
        for (words, expected) in [
            (format!("busybox tftp -g -r none -l x {SERVER}"), "(1) file not found"),
            (format!("busybox tftp -p -r none -l mine {SERVER}"), "(2) this server only sends"),
            (format!("atftp -g -r none -l x {SERVER}"), "<file not found>"),
            (format!("atftp -p -r none -l mine {SERVER}"), "<this server only sends files>"),
            // curl's own numbers for "not found" and "permission".
            (format!("curl -sS {tftp}/none; echo code $?"), "code 68"),
            (format!("curl -sS -T mine {tftp}/none; echo code $?"), "code 69"),
            (format!("curl -sSf {http}/none"), "error: 404"),
            (format!("curl -sSf -T mine {http}/none"), "error: 405"),
            (format!("busybox wget -O x {http}/none"), "404 Not Found"),
        ] {
            let start = Instant::now();
            let said = text_of(&mut command(client, &format!("({words}) 2>&1"), folder));
            let said = said.unwrap_or_else(|error| error.to_string());
            ensure!(said.contains(expected), "{words}: {said:?}, not {expected:?}");
            let took = start.elapsed();
            ensure!(took < Duration::from_secs(4), "{words}: refused after {took:?}");
        }
        let by_curl = fetch(client, &format!("curl -sS {http}/{FILE} -o got"), folder)?;
        let by_wget = fetch(client, &format!("busybox wget -q -O got {http}/{FILE}"), folder)?;
        let by_tftp = fetch(client, &format!("curl -sS {tftp}/{FILE} -o got"), folder)?;
        ensure!(by_curl == by_tftp && by_wget == by_tftp, "HTTP and TFTP differ");
        Ok(())
    });
}

#[test]
fn grub_s_configuration_is_made_for_the_asking_machine() {
    on_a_lan("configuration", &["curl"], |client, folder| {
        let entry =
            fetch(client, &format!("curl -sS tftp://{SERVER}/grub/grub.cfg -o got"), folder)?;
        ensure!(String::from_utf8_lossy(&entry).contains("/grub/machine.cfg"), "{entry:?}");
        let words = format!("curl -sS tftp://{SERVER}/grub/machine.cfg -o got");
        let machine = fetch(client, &words, folder)?;
        let text = String::from_utf8_lossy(&machine);
        ensure!(text.contains("10.77.0.50"), "it doesn't say who asks: {text}");
        Ok(())
    });
}

/// Clients at these addresses fetch the loader at once, with so much lost each way.
fn fetch_loader(
    client: &Client,
    from: &[Ipv4Addr],
    window: u16,
    lost_per_thousand: u32,
) -> Result<Vec<Fetched>> {
    let fetch = Fetch {
        server: SocketAddrV4::new(SERVER.parse()?, 69),
        path: FILE,
        block_size: 1428,
        window,
        patience: Duration::from_secs(1),
        lost_per_thousand,
    };
    let fetched = client.netns().inside(|| Ok(fetch_all(&fetch, from)))?;
    Ok(fetched.into_iter().collect::<std::io::Result<_>>()?)
}

#[test]
fn a_bad_network_costs_packets_that_are_counted_and_no_file() {
    if !require("bad-network", &[Need::Root, Need::Program("grub-mkimage")]) {
        return;
    }
    let run = || -> Result<()> {
        let site = Site::builder().create(Lan::lay("bad-network")?)?;
        let servers = site.up()?;
        let client = site.lan().add_client("bad-network", "52:54:00:00:00:01")?;
        client.netns().ip("addr add 10.77.0.50/24 dev eth0")?;
        let from = [Ipv4Addr::new(10, 77, 0, 50)];
        let good = fetch_loader(&client, &from, 1, 0)?[0];
        for window in [1, 16] {
            for _ in 0..3 {
                let got = fetch_loader(&client, &from, window, 20)?[0];
                ensure!((got.n_bytes, got.digest) == (good.n_bytes, good.digest), "{got:?}");
            }
        }
        // It is counted when the transfer is over: without the client's last ACK, some seconds later.
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let figures = site.browser().get("/metrics")?.body;
            let figure = |name: &str| -> Option<u64> {
                figures.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            };
            let packets = figure("bootlace_tftp_packets_total ").context("no packets")?;
            let again = figure("bootlace_tftp_resends_total ").context("no resends")?;
            if again > 0 && packets > 10 * again {
                break;
            }
            ensure!(Instant::now() < deadline, "{again} of {packets} packets were sent again");
            std::thread::sleep(Duration::from_millis(500));
        }
        drop(client);
        servers.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn a_room_that_starts_at_once_is_not_sent_everything_twice() {
    on_a_lan("room", &[], |client, _| {
        let from: Vec<Ipv4Addr> = (10..90).map(|host| Ipv4Addr::new(10, 77, 0, host)).collect();
        for address in from.iter().filter(|address| address.octets()[3] != 50) {
            client.netns().ip(&format!("addr add {address}/24 dev eth0"))?;
        }
        for window in [1, 16] {
            let fetched = fetch_loader(client, &from, window, 0)?;
            let n_packets: u64 = fetched.iter().map(|got| got.n_packets).sum();
            let n_copies: u64 = fetched.iter().map(|got| got.n_copies).sum();
            // Other tests may keep the processors busy, so that some answers are late.
            ensure!(n_copies * 10 < n_packets, "{n_copies} of {n_packets} blocks came twice");
        }
        Ok(())
    });
}
