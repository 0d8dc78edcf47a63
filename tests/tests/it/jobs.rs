//! Long work: seen, cancelled, killed.

use anyhow::{Context as _, Result, ensure};
use lab::{Lan, Need, Recipe, Site, bootlace_binary, require};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// How long something may take that takes a second.
const SOON: Duration = Duration::from_secs(30);

/// Begins an import in a process of its own.
fn import(site: &Site, image: &str) -> Result<Child> {
    let mut command = site.lan().netns().command(bootlace_binary()?, Signal::SIGKILL);
    command.arg("--root").arg(site.root()).args(["image", "import", image, "--name", "debian"]);
    Ok(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
}

fn pid_of(child: &Child) -> Result<Pid> {
    Ok(Pid::from_raw(child.id().try_into()?))
}

/// Stops a process in the middle of its job, however fast it is.
fn stop_at_work(site: &Site, number: u64, process: Pid) -> Result<Value> {
    loop {
        kill(process, Signal::SIGSTOP).context("the job has ended before it was seen to run")?;
        let job = job(site, number)?;
        let state = job.as_ref().map_or("", |job| job["state"].as_str().unwrap_or_default());
        ensure!(["", "waiting", "running"].contains(&state), "it ended too early: {job:#?}");
        if let Some(job) = job.filter(|job| job["state"] == "running") {
            return Ok(job);
        }
        kill(process, Signal::SIGCONT)?;
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn job(site: &Site, number: u64) -> Result<Option<Value>> {
    let jobs: Value = serde_json::from_str(&site.run(&["job", "ls", "--json"])?)?;
    Ok(jobs.as_array().into_iter().flatten().find(|job| job["number"] == number).cloned())
}

/// What becomes of a job: its state is so, sooner or later.
fn wait_for(site: &Site, number: u64, state: &str) -> Result<Value> {
    let end = Instant::now() + SOON;
    loop {
        let job = job(site, number)?;
        if let Some(job) = job.as_ref().filter(|job| job["state"] == state) {
            return Ok(job.clone());
        }
        ensure!(Instant::now() < end, "job {number} is not {state}: {job:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn drafts(site: &Site) -> Result<usize> {
    let images = fs::read_dir(site.root().join("var/lib/bootlace/images"))?;
    let names = images.flatten().map(|entry| entry.file_name());
    Ok(names.filter(|name| name.as_encoded_bytes().starts_with(b".import-")).count())
}

#[test]
fn an_import_is_a_job_that_can_be_cancelled_and_is_cleaned_up_after_if_it_is_killed() {
    let test = "an_import_is_a_job_that_can_be_cancelled_and_is_cleaned_up_after_if_it_is_killed";
    let needs = [Need::Root, Need::Program("grub-mkimage"), Need::Program("mmdebstrap")];
    if !require(test, &needs) {
        return;
    }
    let run = || -> Result<()> {
        let image = Recipe::default().image(|text| eprintln!("{text}"))?;
        let image = image.to_string_lossy().into_owned();
        let site = Site::builder().create(Lan::lay("jobs")?)?;
        let storage = site.storage()?;
        let server = site.serve()?;

        let child = import(&site, &image)?;
        let process = pid_of(&child)?;
        let job = stop_at_work(&site, 1, process)?;
        ensure!(job["what"] == format!("debian from {image}"), "{job:#}");
        // The boot server may go meanwhile, and come back.
        server.stop()?;
        wait_for(&site, 1, "running").context("without the boot server")?;
        let server = site.serve()?;
        site.run(&["job", "cancel", "1"])?;
        kill(process, Signal::SIGCONT)?;
        let output = child.wait_with_output()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && told.contains("cancelled by root"), "{told}");
        let job = wait_for(&site, 1, "cancelled")?;
        ensure!(job["told"] == "cancelled by root", "{job:#}");
        let again = site.run(&["job", "cancel", "1"]).unwrap_err().to_string();
        ensure!(again.contains("has ended"), "{again}");
        let none = site.run(&["job", "cancel", "99"]).unwrap_err().to_string();
        ensure!(none.contains("there is no job 99"), "{none}");
        ensure!(drafts(&site)? == 0, "something half done stays");
        let audit = site.run(&["audit"])?;
        ensure!(audit.matches("job.cancel").count() == 1, "{audit}");

        let mut child = import(&site, &image)?;
        stop_at_work(&site, 2, pid_of(&child)?)?;
        child.kill()?;
        child.wait()?;
        let job = wait_for(&site, 2, "died")?;
        ensure!(job["told"].as_str().is_some_and(|told| told.contains("killed")), "{job:#}");
        let end = Instant::now() + SOON;
        while drafts(&site)? > 0 || !site.run(&["status"])?.contains("ended without a word") {
            ensure!(Instant::now() < end, "nobody cleans up, or says it");
            std::thread::sleep(Duration::from_millis(200));
        }

        ensure!(import(&site, &image)?.wait()?.success());
        let job = wait_for(&site, 3, "done")?;
        ensure!(job["told"].as_str().is_some_and(|told| told.contains("version 1")), "{job:#}");
        site.run(&["image", "verify"])?;
        let shown = site.run(&["job", "show", "4"])?;
        ensure!(shown.contains("debian/v1: whole"), "{shown}");
        server.stop()?;
        storage.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}

/// What the API answers to a request through the boot server's socket.
fn ask(site: &Site, arguments: &[&str]) -> Result<String> {
    let mut command = std::process::Command::new("curl");
    command.args(["-sS", "--max-time", "60", "--unix-socket"]);
    command.arg(site.root().join("run/bootlace/boot.sock")).args(arguments);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Orders an import as the page does.
fn order(site: &Site, file: &str) -> Result<u64> {
    let body = format!("{{\"file\":\"{file}\",\"image\":\"debian\",\"removes_file\":true}}");
    let json = "Content-Type: application/json";
    let answer = ask(site, &["-H", json, "-d", &body, "http://localhost/api/v1/images"])?;
    let job: Value = serde_json::from_str(&answer)?;
    job["number"].as_u64().with_context(|| format!("no job: {answer}"))
}

/// The process that does a job.
fn process_of(number: u64) -> Result<Pid> {
    let end = Instant::now() + SOON;
    let wanted = format!("\0job\0run\0{number}\0");
    loop {
        for entry in fs::read_dir("/proc")?.flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_it = String::from_utf8_lossy(&line).ends_with(&wanted);
            if let Some(process) = entry.file_name().to_str().filter(|_| is_it) {
                return Ok(Pid::from_raw(process.parse()?));
            }
        }
        ensure!(Instant::now() < end, "nobody does job {number}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_import_that_was_ordered_is_begun_again_after_an_interruption_and_no_more_than_once() {
    let test =
        "an_import_that_was_ordered_is_begun_again_after_an_interruption_and_no_more_than_once";
    let needs = [
        Need::Root,
        Need::Program("grub-mkimage"),
        Need::Program("mmdebstrap"),
        Need::Program("curl"),
    ];
    if !require(test, &needs) {
        return;
    }
    let run = || -> Result<()> {
        let image = Recipe::default().image(|text| eprintln!("{text}"))?;
        let site = Site::builder().create(Lan::lay("job-orders")?)?;
        let storage = site.storage()?;
        let server = site.serve()?;
        // As a browser without script sends it.
        let part = format!("disk=@{};filename=debian.raw", image.display());
        let status = ["-o", "/dev/null", "-w", "%{http_code}"];
        let form = ["-F", &part, "http://localhost/images/upload"];
        let sent = ask(&site, &[&status[..], &form[..]].concat())?;
        ensure!(sent == "303", "{sent}");
        let incoming = site.root().join("var/lib/bootlace/incoming/debian.raw");
        ensure!(fs::metadata(&incoming)?.len() == fs::metadata(&image)?.len());

        // The boot server stops in the middle, and another one goes on.
        let number = order(&site, "debian.raw")?;
        let process = process_of(number)?;
        stop_at_work(&site, number, process)?;
        let stopping = std::thread::spawn(move || server.stop());
        std::thread::sleep(Duration::from_millis(500));
        kill(process, Signal::SIGCONT)?;
        stopping.join().unwrap()?;
        ensure!(drafts(&site)? == 0, "something half done stays");
        wait_for(&site, number, "waiting").context("after the boot server has stopped")?;
        let server = site.serve()?;
        let job = wait_for(&site, number, "done")?;
        ensure!(job["by"] == "root" && !incoming.exists(), "{job:#}");
        ensure!(site.run(&["image", "ls"])?.contains("debian"));

        // A process that is killed twice is not begun a third time.
        fs::copy(&image, &incoming)?;
        let number = order(&site, "debian.raw")?;
        for _ in 0..2 {
            let process = process_of(number)?;
            kill(process, Signal::SIGKILL)?;
            while kill(process, None).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let job = wait_for(&site, number, "died")?;
        ensure!(job["told"].as_str().is_some_and(|told| told.contains("killed")), "{job:#}");
        ensure!(incoming.exists(), "the file is lost");

        // The server is killed: the process goes on, and the next server tells how it ended. A stopped one would get SIGHUP
        // from the kernel, as its group is orphaned then.
        let number = order(&site, "debian.raw")?;
        process_of(number)?;
        server.kill()?;
        let server = site.serve()?;
        wait_for(&site, number, "done")?;
        server.stop()?;
        storage.stop()
    };
    run().unwrap_or_else(|error| panic!("{error:?}"));
}
