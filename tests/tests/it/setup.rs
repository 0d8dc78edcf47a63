//! `bootlace setup`, in a network with other stations.

#![expect(clippy::unwrap_used, reason = "a test that can not be set up must fail")]

use anyhow::{Result, ensure};
use lab::{Client, Daemon, Lan, Need, bootlace_binary, require};
use nix::sys::signal::Signal;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
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

        // Another administrator than the one that there is was never added, and his password dropped.
        let other = setup(&lan, root, &["--yes", "--admin", "ben"], "four red boats\n")?;
        ensure!(other.status.code() == Some(1), "{}", told(&other));
        ensure!(told(&other).contains("user add ben --role admin"), "{}", told(&other));
        let same = setup(&lan, root, &["--yes", "--admin", "anna"], "four red boats\n")?;
        ensure!(same.status.success(), "{}", told(&same));
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

/// A browser on another host, which keeps its cookies.
struct Browser<'a> {
    station: &'a Client,
    jar: &'a Path,
}

impl Browser<'_> {
    /// The page, after a form of these fields was sent if there are any; curl fails if the server refuses.
    fn ask(&self, url: &str, fields: &[&str]) -> Result<String> {
        let mut command = self.station.command("curl");
        command.args(["--insecure", "--silent", "--show-error", "--location", "--max-time", "60"]);
        command.arg("--cookie").arg(self.jar).arg("--cookie-jar").arg(self.jar);
        for field in fields {
            command.args(["--data-urlencode", field]);
        }
        let output = command.arg(url).output()?;
        ensure!(output.status.success(), "{url}: {}", told(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same, where the page must say this.
    fn sees(&self, url: &str, fields: &[&str], words: &str) -> Result<()> {
        let page = self.ask(url, fields)?;
        ensure!(page.contains(words), "{fields:?}: no {words:?} in {page}");
        Ok(())
    }
}

#[test]
fn a_setup_on_a_page_is_for_the_one_browser_that_has_the_link() {
    let test = "a_setup_on_a_page_is_for_the_one_browser_that_has_the_link";
    if !require(test, &[Need::Root, Need::Program("curl")]) {
        return;
    }
    let run = || -> Result<()> {
        let lan = Lan::lay("setup-page")?;
        let station = station(&lan, "setup-desk", "10.77.0.200")?;
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        let by_hand =
            "[network]\ninterface = \"br0\"\npool = \"10.77.0.2-10.77.0.3\"\nmtu = 1400\n";
        fs::create_dir_all(root.join("etc/bootlace"))?;
        fs::write(root.join("etc/bootlace/bootlace.toml"), by_hand)?;
        let mut command = lan.netns().command(bootlace_binary()?, Signal::SIGKILL);
        command.arg("--root").arg(root).args(["setup", "--again", "--lan", "--interface", "br0"]);
        let log = root.join("setup.log");
        let mut page = Daemon::start_detached("bootlace", &mut command, &log)?;
        page.wait_for_log("Waiting", Duration::from_secs(30))?;
        let said = fs::read_to_string(&log)?;
        let link = said.split_whitespace().find(|word| word.starts_with("https://10.77.0.1:"));
        let (url, code) = link.unwrap().split_once("?code=").unwrap();

        let [jar, strangers] = ["jar", "strangers"].map(|name| root.join(name));
        let stranger = Browser { station: &station, jar: &strangers };
        let browser = Browser { station: &station, jar: &jar };
        stranger.sees(url, &[], "Open the link")?;
        stranger.sees(url, &["step=begin"], "Open the link")?;
        stranger.sees(url, &["code=0"], "has been used, or is not of this setup")?;
        // What a chat program does that shows what is behind a link.
        stranger.sees(&format!("{url}?code={code}"), &[], "Begin")?;
        browser.sees(url, &[&format!("code={code}")], "Which network card")?;
        stranger.sees(url, &[&format!("code={code}")], "has been used")?;
        stranger.sees(url, &[], "Open the link")?;

        browser.sees(url, &["step=card", "card=br7"], "There is no network card")?;
        browser.sees(url, &["step=card", "card=br0"], "10.77.0.2-10.77.0.3")?;
        let pool = "pool=10.77.0.50-10.77.0.60";
        let fields = ["step=network", pool, "router=10.9.9.9", "dns=", "open_pages=yes"];
        browser.sees(url, &fields, "That does not fit: router 10.9.9.9")?;
        let fields = ["step=network", pool, "router=", "dns=", "open_pages=yes"];
        browser.sees(url, &fields, "Name of the administrator")?;
        let passwords = ["password=three blue doors", "again=three blue door"];
        let account = [&["step=account", "name=anna"], &passwords[..]].concat();
        browser.sees(url, &account, "passwords differ")?;
        let passwords = ["password=three blue doors", "again=three blue doors"];
        browser.sees(
            url,
            &[&["step=account", "name=anna"], &passwords[..]].concat(),
            "first image",
        )?;
        browser.sees(url, &["step=image", "file=/nowhere", "name=x"], "be imported")?;
        browser.sees(url, &["step=image", "file=", "name=x"], "The account anna is added")?;
        ensure!(config(root) == by_hand, "nothing may be written before all is said");
        browser.ask(url, &["step=begin"])?;
        page.wait_for_log("Added anna", Duration::from_secs(60))?;
        browser.sees(url, &[], "Start it on the server")?;
        for words in ["10.77.0.50-10.77.0.60", "mtu = 1400", "0.0.0.0:8443"] {
            ensure!(config(root).contains(words), "{words}: {}", config(root));
        }
        let users = lan.netns().command(bootlace_binary()?, Signal::SIGKILL);
        ensure!(listed(users, root)?.contains("anna"));

        browser.sees(url, &["step=undo"], "The former configuration is back")?;
        ensure!(config(root) == by_hand);
        drop(page);
        let output = setup(&lan, root, &["--undo"], "")?;
        ensure!(told(&output).contains("nothing to undo"), "{}", told(&output));
        Ok(())
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}

/// All accounts.
fn listed(mut command: Command, root: &Path) -> Result<String> {
    let output = command.arg("--root").arg(root).args(["user", "ls"]).output()?;
    Ok(told(&output))
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
        let options = ["--yes", "--interface", "br0", "--mode", "dhcp"];
        let output = setup(&lan, root, &options, "")?;
        ensure!(
            told(&output).contains("another DHCP server answers, 10.77.0.9"),
            "{}",
            told(&output)
        );
        ensure!(!output.status.success() && config(root).is_empty(), "it is written");
        let proxy = tempfile::tempdir()?;
        let output = setup(&lan, proxy.path(), &["--yes", "--interface", "br0"], "")?;
        let written = config(proxy.path());
        ensure!(
            output.status.success()
                && written.contains("mode = \"proxy\"")
                && !written.contains("pool"),
            "{}",
            told(&output)
        );
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
