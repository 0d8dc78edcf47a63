//! `bootlace setup`, in a network with other stations.

#![expect(clippy::unwrap_used, reason = "a test that can not be set up must fail")]

use anyhow::{Result, ensure};
use lab::{Client, Daemon, Lan, Need, bootlace_binary, require};
use nix::sys::signal::Signal;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

const STATION: &str = "52:54:00:00:00:09";

/// A station on the LAN that has this address, and says nothing unless it is asked.
fn station(lan: &Lan, purpose: &str, address: &str) -> Result<Client> {
    let client = lan.add_client(purpose, STATION)?;
    client.netns().ip(&format!("addr add {address}/24 dev eth0"))?;
    Ok(client)
}

/// What the command says to this input.
fn setup(lan: &Lan, root: &Path, arguments: &[&str], input: &str) -> Result<Output> {
    let mut command = lan.netns().command(bootlace_binary()?, Signal::SIGKILL);
    command.arg("--root").arg(root).arg("setup").args(arguments);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn()?;
    // What it does not read it need not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    Ok(child.wait_with_output()?)
}

/// The same in a terminal.
fn in_terminal(lan: &Lan, root: &Path, typed: &str) -> Result<String> {
    let program = bootlace_binary()?;
    let mut command = lan.netns().command("script", Signal::SIGKILL);
    let line = format!("{} --root {} setup", program.display(), root.display());
    command.args(["-qec", &line, "/dev/null"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().unwrap().write_all(typed.as_bytes())?;
    Ok(String::from_utf8_lossy(&child.wait_with_output()?.stdout).into_owned())
}

fn told(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    format!("{out}{error}")
}

fn config(root: &Path) -> String {
    fs::read_to_string(root.join("etc/bootlace/bootlace.toml")).unwrap_or_default()
}

#[test]
fn a_setup_takes_no_address_that_somebody_has_and_serves_at_once() {
    let test = "a_setup_takes_no_address_that_somebody_has_and_serves_at_once";
    if !require(test, &[Need::Root, Need::Program("grub-mkimage")]) {
        return;
    }
    let run = || -> Result<()> {
        let lan = Lan::lay("setup")?;
        let _station = station(&lan, "setup-station", "10.77.0.150")?;
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        let options = ["--yes", "--open-pages", "--interface", "br0"];
        let output = setup(&lan, root, &options, "")?;
        ensure!(!output.status.success() && told(&output).contains("--admin"), "{}", told(&output));
        ensure!(config(root).is_empty(), "nothing may be written");

        let with_admin = [&options[..], &["--admin", "anna"]].concat();
        let output = setup(&lan, root, &with_admin, "short\n")?;
        ensure!(told(&output).contains("at least 10 characters"), "{}", told(&output));
        ensure!(config(root).is_empty(), "nothing may be written");
        let output = setup(&lan, root, &with_admin, "three blue doors\n")?;
        ensure!(output.status.success(), "{}", told(&output));
        ensure!(told(&output).contains("One station was heard"), "{}", told(&output));
        ensure!(config(root).contains("pool = \"10.77.0.2-10.77.0.149\""), "{}", config(root));

        let again = setup(&lan, root, &["--yes"], "")?;
        ensure!(
            again.status.success() && told(&again).contains("Nothing to change"),
            "{}",
            told(&again)
        );
        let mut up = lan.netns().command(bootlace_binary()?, Signal::SIGKILL);
        up.arg("--root").arg(root).arg("up");
        let mut servers = Daemon::start_detached("bootlace", &mut up, &root.join("up.log"))?;
        servers.wait_for_log("the web page is https://", Duration::from_secs(60))?;
        servers.stop()?;

        let undone = setup(&lan, root, &["--undo"], "")?;
        ensure!(told(&undone).contains("answers nobody"), "{}", told(&undone));
        ensure!(config(root).is_empty());
        Ok(())
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}

#[test]
fn a_setup_beside_another_dhcp_server_changes_nothing() {
    let test = "a_setup_beside_another_dhcp_server_changes_nothing";
    if !require(test, &[Need::Root, Need::Program("dnsmasq"), Need::Program("script")]) {
        return;
    }
    let run = || -> Result<()> {
        let lan = Lan::lay("setup-beside")?;
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        // What is typed too little is asked once more; the terminal ends before the last answer.
        let told_in_terminal =
            in_terminal(&lan, root, "br7\nbr0\n10.77.0.1-10.77.0.9\nnone\nnone\nn\n\u{4}")?;
        for words in
            ["no such card", "No other DHCP server", "That does not fit", "nothing was changed"]
        {
            ensure!(told_in_terminal.contains(words), "{words}: {told_in_terminal}");
        }

        let place = station(&lan, "setup-dnsmasq", "10.77.0.9")?;
        let mut command = place.command("dnsmasq");
        command.args(["-k", "-p", "0", "-C", "/dev/null", "-i", "eth0", "--leasefile-ro"]);
        command.args(["--log-facility=-", "--pid-file=", "-F", "10.77.0.10,10.77.0.20"]);
        let mut dnsmasq =
            Daemon::start_detached("dnsmasq", &mut command, &root.join("dnsmasq.log"))?;
        dnsmasq.wait_for_log("DHCP, IP range", Duration::from_secs(20))?;
        let options = ["--yes", "--interface", "br0"];
        let output = setup(&lan, root, &options, "")?;
        ensure!(!output.status.success(), "{}", told(&output));
        ensure!(
            told(&output).contains("another DHCP server answers, 10.77.0.9"),
            "{}",
            told(&output)
        );
        ensure!(config(root).is_empty(), "nothing may be written");
        let output = setup(&lan, root, &[&options[..], &["--beside-others"]].concat(), "")?;
        ensure!(
            output.status.success() && config(root).contains("beside_others = true"),
            "{}",
            told(&output)
        );
        Ok(())
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}
