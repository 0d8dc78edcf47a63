//! A Bootlace site on a LAN: its state, its servers, what it says of its machines.

use crate::command::{run, run_with_line, text_of};
use crate::daemon::Daemon;
use crate::http::Browser;
use crate::image::{CACHE, fnv1a};
use crate::lan::Lan;
use crate::lock::Lock;
use crate::netns::Netns;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Address of the pages inside of the LAN's namespace, unless a listening socket is handed over.
const PAGES: &str = "127.0.0.1:8080";

/// Which addresses PCs get.
const POOL: &str = "10.77.0.100-10.77.0.199";

/// Who the servers become: the owner of a site's folder. Nobody else has this number.
pub const SERVERS_UID: u32 = 60_999;

/// How long the servers may take to start. A debug build on a busy machine makes loaders first.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The binary under test: `BOOTLACE_BIN`, or what `cargo xtask build` has left beside this program.
///
/// # Errors
/// There is none.
pub fn bootlace_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BOOTLACE_BIN") {
        return Ok(path.into());
    }
    let program = std::env::current_exe()?;
    // Tests are in target/debug/deps, xtask is in target/debug.
    let found = program.ancestors().skip(1).take(2).map(|folder| folder.join("bootlace"));
    found
        .into_iter()
        .find(|path| path.is_file())
        .context("there is no binary to test: run `cargo xtask build` first, or set BOOTLACE_BIN")
}

/// How a site is set up.
#[derive(Clone, Debug)]
pub struct SiteBuilder {
    kernel_args: String,
    name_server: Option<String>,
    pool: String,
    network: String,
    more_networks: String,
    boot: String,
    storage: String,
    pages: String,
    binary: Option<PathBuf>,
    clock: bool,
    verbose: bool,
}

/// libfaketime, of Debian's package `faketime`: a program's wall clock is what a file says.
pub const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// That file's name in the site's folder.
const CLOCK: &str = "clock";

impl SiteBuilder {
    /// Lets the servers have a clock that [`Site::set_clock`] sets.
    #[must_use]
    pub fn with_clock(mut self) -> Self {
        self.clock = true;
        self
    }

    /// Sets where the pages are, such as `10.77.0.1:8443`; without it they are for programs on the server.
    #[must_use]
    pub fn pages(mut self, listen: &str) -> Self {
        listen.clone_into(&mut self.pages);
        self
    }

    /// Sets the kernel parameters of all machines; a serial console without it.
    #[must_use]
    pub fn kernel_args(mut self, kernel_args: &str) -> Self {
        kernel_args.clone_into(&mut self.kernel_args);
        self
    }

    /// Sets the name server of all machines; none without it.
    #[must_use]
    pub fn name_server(mut self, address: &str) -> Self {
        self.name_server = Some(address.to_owned());
        self
    }

    /// Sets which addresses PCs get, in place of a hundred of [`SERVER_PREFIX`](crate::SERVER_PREFIX)'s network.
    #[must_use]
    pub fn pool(mut self, pool: &str) -> Self {
        pool.clone_into(&mut self.pool);
        self
    }

    /// Adds a line to `[network]` of the configuration.
    #[must_use]
    pub fn network(mut self, line: &str) -> Self {
        self.network += &format!("{line}\n");
        self
    }

    /// Adds a `[[network]]` with these lines to the configuration, of which the first one is [`SERVER_PREFIX`](crate::SERVER_PREFIX)'s.
    #[must_use]
    pub fn another_network(mut self, lines: &str) -> Self {
        self.more_networks += &format!("[[network]]\n{lines}\n");
        self
    }

    /// Adds a line to `[boot]` of the configuration.
    #[must_use]
    pub fn boot(mut self, line: &str) -> Self {
        self.boot += &format!("{line}\n");
        self
    }

    /// Adds a line to `[storage]` of the configuration.
    #[must_use]
    pub fn storage(mut self, line: &str) -> Self {
        self.storage += &format!("{line}\n");
        self
    }

    /// Sets the program; without it [`bootlace_binary`].
    #[must_use]
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self
    }

    /// Lets the servers log more.
    #[must_use]
    pub fn verbose(mut self) -> Self {
        self.verbose = true;
        self
    }

    /// Writes the configuration. Nothing runs yet.
    ///
    /// # Errors
    /// There is no binary, or the files can't be written.
    pub fn create(&self, lan: Lan) -> Result<Site> {
        let binary = self.binary.clone().map_or_else(bootlace_binary, Ok)?;
        let root = tempfile::Builder::new().prefix("bootlace-site-").tempdir()?;
        let folder = root.path().join("etc/bootlace");
        std::fs::create_dir_all(&folder)?;
        let dns = self
            .name_server
            .as_ref()
            .map(|server| format!("dns = [\"{server}\"]\n"))
            .unwrap_or_default();
        let header = if self.more_networks.is_empty() { "[network]" } else { "[[network]]" };
        let config = format!(
            "{header}\ninterface = \"br0\"\npool = \"{}\"\n{dns}{}\n{}\n\
             [boot]\nkernel_args = \"{}\"\n{}\n[web]\nlisten = \"{}\"\n\n[storage]\n{}",
            self.pool,
            self.network,
            self.more_networks,
            self.kernel_args,
            self.boot,
            self.pages,
            self.storage
        );
        std::fs::write(folder.join("bootlace.toml"), config)?;
        share_modules(root.path())?;
        if is_reachable(&binary) {
            chown(root.path(), Some(SERVERS_UID), Some(SERVERS_UID))?;
        } else {
            eprintln!("the servers stay root: others can't reach {}", binary.display());
        }
        Ok(Site {
            lan,
            root,
            binary,
            verbose: self.verbose,
            clock: self.clock,
            pages: self.pages.clone(),
            pages_outside: None,
            token: Mutex::default(),
        })
    }
}

/// Whether everybody may run the program and read what lies beside it.
fn is_reachable(program: &Path) -> bool {
    let lets_others_in =
        |path: &Path| std::fs::metadata(path).is_ok_and(|about| about.mode() & 0o1 != 0);
    program.canonicalize().is_ok_and(|program| program.ancestors().all(lets_others_in))
}

/// Compressing modules is most of the work of an initrd, and the same in each site.
fn share_modules(root: &Path) -> Result<()> {
    let shared = Path::new(CACHE).join("modules");
    std::fs::create_dir_all(&shared).with_context(|| format!("can't make {}", shared.display()))?;
    // Servers write there, whoever they are.
    std::fs::set_permissions(&shared, Permissions::from_mode(0o777))?;
    let folder = root.join("var/cache/bootlace");
    std::fs::create_dir_all(&folder)?;
    Ok(std::os::unix::fs::symlink(shared, folder.join("modules"))?)
}

/// A site. Its state is deleted when this is dropped; drop its servers and PCs first.
#[derive(Debug)]
pub struct Site {
    lan: Lan,
    root: TempDir,
    binary: PathBuf,
    verbose: bool,
    clock: bool,
    pages: String,
    pages_outside: Option<String>,
    /// By which the API lets us do everything; made when it is needed first.
    token: Mutex<Option<String>>,
}

/// A stage of a boot, as the API tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageLine {
    /// Number of the boot.
    pub boot: u64,
    /// Name of the stage, like `attach`.
    pub stage: String,
    /// More about it; may be empty.
    pub detail: String,
    /// When it was reached, milliseconds since 1970.
    pub at_unix_ms: u64,
}

impl Site {
    /// Describes a site.
    pub fn builder() -> SiteBuilder {
        let kernel_args = "console=tty0 console=ttyS0,115200".to_owned();
        SiteBuilder {
            kernel_args,
            name_server: None,
            pool: POOL.to_owned(),
            network: String::new(),
            more_networks: String::new(),
            boot: String::new(),
            storage: String::new(),
            pages: PAGES.to_owned(),
            binary: None,
            clock: false,
            verbose: false,
        }
    }

    /// The LAN.
    pub fn lan(&self) -> &Lan {
        &self.lan
    }

    /// The folder with all state.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Sets the wall clock of a site [`with_clock`](SiteBuilder::with_clock) so many days ahead, or back.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn set_clock(&self, days: i32) -> Result<()> {
        // A rename, so that nobody reads half of it.
        let new = self.root().join("clock.new");
        std::fs::write(&new, format!("{days:+}d\n"))?;
        Ok(std::fs::rename(new, self.root().join(CLOCK))?)
    }

    /// Runs `bootlace --root … ARGUMENTS` to its end and returns what it printed.
    ///
    /// # Errors
    /// It fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        text_of(self.command().args(arguments))
    }

    /// Builds an image by a recipe that comes along, or takes the one that was built before by the same: it is kept. `say` hears about the
    /// long work.
    ///
    /// # Errors
    /// It can't be built: mostly no network, or no room.
    pub fn build_image(&self, recipe: &str, set: &[&str], say: impl Fn(&str)) -> Result<()> {
        let text = self.run(&["image", "recipes", recipe])?;
        let key = fnv1a([&[&*text][..], set].concat().join("\0").as_bytes());
        let kept = Path::new(CACHE).join(format!("{recipe}-{key:016x}.raw"));
        let _lock = Lock::take(recipe, || say("waiting for another run that builds the image"))?;
        if kept.exists() {
            let kept = kept.display().to_string();
            return self.run(&["image", "import", &kept, "--name", recipe]).map(drop);
        }
        say(&format!(
            "building {recipe} by its recipe, kept for the next time; this takes some minutes"
        ));
        // In the network of this machine: that of the lab leads nowhere.
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(self.root()).args(["image", "build", "--recipe", recipe]);
        command.args(set.iter().flat_map(|set| ["--set", set]));
        run(&mut command)?;
        let disk = self.root().join("var/lib/bootlace/images").join(recipe).join("1/disk.raw");
        let part = kept.with_extension("part");
        run(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).args([&disk, &part]))?;
        Ok(std::fs::rename(&part, &kept)?)
    }

    /// Adds an account with this password.
    ///
    /// # Errors
    /// It is refused.
    pub fn add_user(&self, name: &str, role: &str, password: &str) -> Result<()> {
        run_with_line(self.command().args(["user", "add", name, "--role", role]), password)
    }

    /// Starts both servers and waits until the pages answer. The state must not be deleted before
    /// they stop, so keep the site longer.
    ///
    /// # Errors
    /// They don't start; the error shows the log's end.
    pub fn up(&self) -> Result<Daemon> {
        self.start(self.command().arg("up").stdin(Stdio::null()))
    }

    /// [`Site::up`], with the pages on a socket that listens elsewhere, such as outside of the namespace.
    ///
    /// # Errors
    /// As [`Site::up`].
    pub fn up_with_pages_on(&mut self, listener: TcpListener) -> Result<Daemon> {
        self.pages_outside = Some(format!("http://{}", listener.local_addr()?));
        let inner = self.command();
        // The socket arrives as standard input; systemd's protocol wants it as number 3, and our
        // process id, which only the shell knows before it becomes the server.
        let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\" 3<&0 </dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
        command.arg("up").stdin(Stdio::from(OwnedFd::from(listener)));
        self.start(&mut command)
    }

    /// Starts only the storage server.
    ///
    /// # Errors
    /// It does not start; the error shows the log's end.
    pub fn storage(&self) -> Result<Daemon> {
        let log = self.root().join("storage.log");
        let mut daemon = Daemon::start_detached("storage", self.command().arg("storage"), &log)?;
        daemon.wait_for_log("storage server ready", START_TIMEOUT)?;
        Ok(daemon)
    }

    /// Starts only the boot server.
    ///
    /// # Errors
    /// As [`Site::up`].
    pub fn serve(&self) -> Result<Daemon> {
        self.start(self.command().arg("serve").stdin(Stdio::null()))
    }

    /// Looks at the pages, as somebody who may do everything.
    pub fn browser(&self) -> Browser<'_> {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if token.is_none() {
            *token = self.new_token();
        }
        self.stranger().with_token(token.clone())
    }

    /// A token for everything; `None`: no server runs yet, or one that knows none.
    fn new_token(&self) -> Option<String> {
        let printed = self.run(&["token", "add", "tests", "--scope", "admin"]).ok()?;
        printed.lines().find(|line| line.starts_with("bl_")).map(str::to_owned)
    }

    /// The link that logs a browser in once, for pages at this address.
    ///
    /// # Errors
    /// No server runs.
    pub fn login_link(&self, pages: &str) -> Result<String> {
        let printed = self.run(&["login"])?;
        let link = printed.lines().find_map(|line| line.split_once("/login?code="));
        let (_, code) = link.context("bootlace login prints no link")?;
        Ok(format!("{}/login?code={code}", pages.trim_end_matches('/')))
    }

    /// Looks at the pages as somebody whom nobody knows.
    pub fn stranger(&self) -> Browser<'_> {
        match &self.pages_outside {
            Some(base) => Browser::new(None, base),
            None => self.stranger_in(self.lan.netns()),
        }
    }

    /// Looks at the pages from a place on the LAN as somebody whom nobody knows.
    pub fn stranger_in<'a>(&self, netns: &'a Netns) -> Browser<'a> {
        if self.pages.starts_with("127.") {
            return Browser::new(Some(netns), &format!("http://{}", self.pages));
        }
        let authority = self.root().join("var/lib/bootlace/web/authority.pem");
        Browser::new(Some(netns), &format!("https://{}", self.pages)).trusting(&authority)
    }

    /// Stages of a machine's last boot; empty if it never booted, or if there is no such machine.
    ///
    /// # Errors
    /// The API does not answer.
    pub fn stages(&self, machine: &str) -> Result<Vec<StageLine>> {
        let answer = self.browser().get(&format!("/api/v1/machines/{machine}"))?;
        if answer.status == 404 {
            return Ok(Vec::new());
        }
        ensure!(answer.status == 200, "the API says {}: {}", answer.status, answer.body);
        let view: Value = serde_json::from_str(&answer.body).context("the API sends no JSON")?;
        Ok(stages_of(&view).unwrap_or_default())
    }

    /// Waits until a machine's last boot has reached a stage, and returns all of that boot.
    ///
    /// # Errors
    /// It does not in time, or the boot fails; the error shows the stages so far.
    pub fn wait_for_stage(
        &self,
        machine: &str,
        stage: &str,
        timeout: Duration,
    ) -> Result<Vec<StageLine>> {
        let deadline = Instant::now() + timeout;
        loop {
            let stages = self.stages(machine)?;
            if stages.iter().any(|line| line.stage == stage) {
                return Ok(stages);
            }
            let failed = stages.iter().find(|line| line.stage == "failed");
            if failed.is_some() || Instant::now() > deadline {
                bail!("{machine} has not reached the stage {stage:?}, only {stages:#?}");
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// The command by which somebody starts a server at a terminal, which is to be its standard input.
    pub fn in_session(&self, server: &str) -> Command {
        let inner = self.command();
        // A test run that nohup(1) has started ignores that its terminal is closed, and so would all that it starts.
        let mut command = Command::new("env");
        command
            .args(["--default-signal=HUP", "setsid", "--ctty", "--wait"])
            .arg(inner.get_program())
            .args(inner.get_args());
        command.arg(server);
        command
    }

    fn command(&self) -> Command {
        let mut command = self.lan.netns().command(&self.binary, Signal::SIGTERM);
        command.arg("--root").arg(self.root());
        if self.verbose {
            command.arg("-v");
        }
        if self.clock {
            command.env("LD_PRELOAD", FAKETIME).env("FAKETIME_NO_CACHE", "1");
            command.env("FAKETIME_TIMESTAMP_FILE", self.root().join(CLOCK));
            // Nobody sets this one, and files keep their times.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
        }
        command
    }

    fn start(&self, command: &mut Command) -> Result<Daemon> {
        let log = self.root().join("bootlace.log");
        let mut daemon = Daemon::start("bootlace up", command, &log)?;
        daemon.wait_until("answer on the web page", START_TIMEOUT, |_| {
            self.stranger().get("/healthz").is_ok_and(|answer| answer.status == 200)
        })?;
        // The database may be another one than before.
        if self.browser().get("/api/v1/status")?.status != 200 {
            *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Ok(daemon)
    }
}

fn stages_of(view: &Value) -> Option<Vec<StageLine>> {
    let boot = view.get("boot")?;
    let id = boot.get("id")?.as_u64()?;
    let stage = |event: &Value| {
        Some(StageLine {
            boot: id,
            stage: event.get("stage")?.as_str()?.to_owned(),
            detail: event.get("detail")?.as_str()?.to_owned(),
            at_unix_ms: event.get("at_unix_ms")?.as_u64()?,
        })
    };
    boot.get("stages")?.as_array()?.iter().map(stage).collect()
}
