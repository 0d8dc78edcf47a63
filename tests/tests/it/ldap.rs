//! People of a directory, which is OpenLDAP's, and directories that do not do as they should.

use anyhow::{Context as _, Result, ensure};
use lab::{Answer, Authority, Browser, Daemon, Lan, Need, Site, require};
use nix::sys::signal::Signal;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const NEEDS: [Need; 5] = [
    Need::Root,
    Need::Program("grub-mkimage"),
    Need::Program("curl"),
    Need::Program("slapd"),
    Need::Program("ldapwhoami"),
];

/// Of accounts of the server.
const PASSWORD: &str = "three blue doors";

const PEOPLE: &str = "ou=people,dc=school,dc=example";

/// Who searches, as root would set it up: he sees the names of people and groups.
const SEARCHER: &str = "cn=bootlace,dc=school,dc=example";

/// A directory: anna is in it, tom a teacher of two groups, of which one knows him by his uid alone; eve is in no group; two
/// people are called twin; and some are called as others here are.
fn entries() -> String {
    let mut text = "dn: dc=school,dc=example\nobjectClass: domain\ndc: school\n\n".to_owned();
    for unit in [PEOPLE, "ou=more,dc=school,dc=example", "ou=groups,dc=school,dc=example"] {
        let _ = write!(text, "dn: {unit}\nobjectClass: organizationalUnit\n\n");
    }
    let _ = write!(
        text,
        "dn: {SEARCHER}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: bootlace\n\
         userPassword: search-sesame\n\n"
    );
    let people = ["anna", "tom", "eve", "twin", "otto", "root"].map(|name| (name, PEOPLE));
    for (name, unit) in people.into_iter().chain([("twin", "ou=more,dc=school,dc=example")]) {
        let _ = write!(
            text,
            "dn: uid={name},{unit}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\n\
             userPassword: {name}-of-the-school\n\n"
        );
    }
    for (group, members) in
        [("it", ["anna", "otto", "root", "twin"].as_slice()), ("r101", &["tom"])]
    {
        let _ = write!(
            text,
            "dn: cn={group},ou=groups,dc=school,dc=example\nobjectClass: groupOfNames\ncn: {group}\n"
        );
        for member in members {
            let _ = writeln!(text, "member: UID={member}, {PEOPLE}");
        }
        text.push('\n');
    }
    text + "dn: cn=r102,ou=groups,dc=school,dc=example\nobjectClass: posixGroup\ncn: r102\ngidNumber: 102\n\
            memberUid: tom\nmemberUid: anna\n\n"
}

const GROUPS: &str = r#"
[[ldap.group]]
dn = "cn=r101,ou=groups,dc=school,dc=example"
role = "teacher"
rooms = ["r101"]
[[ldap.group]]
dn = "cn=r102,ou=groups,dc=school,dc=example"
role = "teacher"
rooms = ["r102"]
[[ldap.group]]
dn = "cn=it,ou=groups,dc=school,dc=example"
role = "admin"
[[ldap.group]]
dn = "cn=gone,ou=groups,dc=school,dc=example"
role = "admin"
"#;

/// A site with files of its directory.
struct School {
    site: Site,
    folder: PathBuf,
}

impl School {
    fn found(name: &str) -> Result<Self> {
        let site = Site::builder().create(Lan::lay(name)?)?;
        let folder = site.root().join("ldap");
        let authority = Authority::new("the authority of a school")?;
        authority.issue(&folder, "ldap")?;
        authority.trust(&folder)?;
        fs::create_dir(folder.join("data"))?;
        fs::write(folder.join("password"), "search-sesame\n")?;
        fs::write(folder.join("wrong"), "search-barley\n")?;
        fs::write(folder.join("entries.ldif"), entries())?;
        let place = folder.display();
        let schemas = ["core", "cosine", "nis", "inetorgperson"];
        let schemas = schemas.map(|name| format!("include /etc/ldap/schema/{name}.schema\n"));
        // It says yes to an empty password, as some do, if anybody sends one.
        let config = format!(
            "{}modulepath /usr/lib/ldap\nmoduleload back_mdb\nallow bind_anon_cred\n\
             TLSCACertificateFile {place}/ca-cert.pem\nTLSCertificateFile {place}/ldap-cert.pem\n\
             TLSCertificateKeyFile {place}/ldap-key.pem\n\
             database mdb\nsuffix dc=school,dc=example\ndirectory {place}/data\nmaxsize 16777216\n\
             access to attrs=userPassword by anonymous auth by * none\n\
             access to * by dn.exact={SEARCHER} read by users read by * none\n",
            schemas.concat()
        );
        fs::write(folder.join("slapd.conf"), config)?;
        let mut load = Command::new("/usr/sbin/slapadd");
        load.arg("-f").arg(folder.join("slapd.conf")).arg("-l").arg(folder.join("entries.ldif"));
        let loaded = load.output()?;
        ensure!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
        Ok(Self { site, folder })
    }

    /// The directory.
    fn slapd(&self) -> Result<Daemon> {
        let mut command = self.site.lan().netns().command("/usr/sbin/slapd", Signal::SIGKILL);
        // In the foreground, with a line for each request in its log.
        command.args(["-d", "stats", "-h", "ldap://127.0.0.1:1389 ldaps://127.0.0.1:1636", "-f"]);
        command.arg(self.folder.join("slapd.conf"));
        let mut daemon = Daemon::start("slapd", &mut command, &self.folder.join("slapd.log"))?;
        daemon.wait_for_log("slapd starting", Duration::from_secs(20))?;
        // A client that is not ours finds its way, and so must ours.
        let mut other = self.site.lan().netns().command("ldapwhoami", Signal::SIGKILL);
        other.env("LDAPTLS_CACERT", self.folder.join("ca-cert.pem"));
        other.args(["-ZZ", "-x", "-H", "ldap://127.0.0.1:1389", "-w", "anna-of-the-school", "-D"]);
        let told = other.arg(format!("uid=anna,{PEOPLE}")).output()?;
        ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        Ok(daemon)
    }

    /// A server at this port that says this to whoever comes, and nothing else.
    fn strange(&self, port: u16, says: &str) -> Result<Daemon> {
        let script = format!(
            "import socket\nserver = socket.create_server(('127.0.0.1', {port}))\nprint('ready', flush=True)\nhere = []\n\
             while True:\n    here.append(server.accept()[0])\n    here[-1].sendall({says:?}.encode())\n"
        );
        let mut command = self.site.lan().netns().command("/usr/bin/python3", Signal::SIGKILL);
        command.args(["-c", &script]);
        let log = self.folder.join(format!("strange-{port}.log"));
        let mut daemon = Daemon::start("strange", &mut command, &log)?;
        daemon.wait_for_log("ready", Duration::from_secs(20))?;
        Ok(daemon)
    }

    /// What is the same for all that search.
    fn searching(&self, url: &str) -> String {
        let folder = self.folder.display();
        format!(
            "url = \"{url}\"\nca = \"{folder}/ca-cert.pem\"\nbase = \"dc=school,dc=example\"\nbind_dn = \"{SEARCHER}\"\n\
             password_file = \"{folder}/password\"\n"
        )
    }

    fn configure(&self, ldap: Option<&str>) -> Result<()> {
        let path = self.site.root().join("etc/bootlace/bootlace.toml");
        let text = fs::read_to_string(&path)?;
        let before = text.split("[ldap]").next().unwrap_or_default().trim_end();
        let section = ldap.map_or_else(String::new, |ldap| format!("[ldap]\n{ldap}{GROUPS}"));
        Ok(fs::write(&path, format!("{before}\n{section}"))?)
    }

    /// What `bootlace user test-login` says to this password, whether he would be let in or not.
    fn test_login(&self, name: &str, password: &str) -> Result<(bool, String)> {
        let mut command = self.site.lan().netns().command(lab::bootlace_binary()?, Signal::SIGKILL);
        command.arg("--root").arg(self.site.root()).args(["user", "test-login", name]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take().context("it has no input")?;
        writeln!(&input, "{password}")?;
        drop(input);
        let output = child.wait_with_output()?;
        let [out, error] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
        Ok((output.status.success(), format!("{out}{error}")))
    }

    fn stranger(&self) -> Result<Browser<'_>> {
        self.site.stranger().with_cookies()
    }
}

fn log_in(browser: &Browser<'_>, name: &str, password: &str) -> Result<Answer> {
    browser.post("/login", &[("name", name), ("password", password), ("next", "/machines")])
}

fn status(browser: &Browser<'_>, path: &str) -> Result<u16> {
    Ok(browser.get(path)?.status)
}

#[test]
fn people_of_a_directory_are_let_in_by_their_groups() {
    if require("people_of_a_directory_are_let_in_by_their_groups", &NEEDS) {
        let school = School::found("ldap-people").unwrap_or_else(|error| panic!("{error:#}"));
        by_their_groups(&school).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn by_their_groups(school: &School) -> Result<()> {
    let site = &school.site;
    let slapd = school.slapd()?;
    school.configure(Some(&school.searching("ldap://localhost:1389")))?;
    site.add_user("otto", "viewer", PASSWORD)?;
    let servers = site.serve()?;

    let anna = school.stranger()?;
    let right = log_in(&anna, "anna", "anna-of-the-school")?;
    ensure!(right.status == 303, "{right:?}");
    let log = slapd.log();
    ensure!(log.contains("STARTTLS") && log.contains("TLS established"), "{log}");
    // The better of her roles; she has no account of this server.
    ensure!(status(&anna, "/users")? == 200 && status(&anna, "/account")? == 403);
    ensure!(!anna.get("/machines")?.body.contains("href=\"/account\""));
    let added = [("name", "new"), ("role", "viewer"), ("password", PASSWORD), ("rooms", "all")];
    ensure!(anna.post("/users", &added)?.status == 303);
    let tom = school.stranger()?;
    let right = log_in(&tom, "tom", "tom-of-the-school")?;
    ensure!(right.status == 303, "{right:?}");
    ensure!(status(&tom, "/machines")? == 200 && status(&tom, "/users")? == 403);
    let me = tom.json("/api/v1/me")?;
    ensure!(me["rooms"] == serde_json::json!(["r101", "r102"]), "{me}");

    // An empty password is sent to no directory, which would say yes to it.
    let n_binds = slapd.log().matches(" BIND ").count();
    ensure!(log_in(&school.stranger()?, "anna", "")?.status == 401);
    ensure!(slapd.log().matches(" BIND ").count() == n_binds, "{}", slapd.log());
    let wrong = log_in(&school.stranger()?, "anna", "eve-of-the-school")?;
    ensure!(wrong.status == 401 && wrong.body.contains("name or password is wrong"), "{wrong:?}");
    for (name, password) in [
        ("eve", "eve-of-the-school"),
        ("*", "anna-of-the-school"),
        (")(uid=*", "anna-of-the-school"),
        // His account here comes first, and it has another password.
        ("otto", "otto-of-the-school"),
    ] {
        let refused = log_in(&school.stranger()?, name, password)?;
        ensure!(refused.status == 401, "{name}: {refused:?}");
    }
    ensure!(servers.log().contains("is in none of the groups"), "{}", servers.log());
    // Enough from there, of whatever kind: each waits twice as long as the one before.
    let is_delayed = || Ok(log_in(&school.stranger()?, "eve", "eve-of-the-school")?.status == 429);
    wait_for("eve to be told to wait", is_delayed)?;
    let otto = school.stranger()?;
    wait_for("otto to be let in", || Ok(log_in(&otto, "otto", PASSWORD)?.status == 303))?;
    ensure!(status(&otto, "/users")? == 403 && status(&otto, "/account")? == 200);
    let log = site.run(&["audit"])?;
    for entry in ["anna (page, by the directory, 127.0.0.1)", "tom (page, by the directory"] {
        ensure!(log.contains(entry), "{entry}: {log}");
    }
    ensure!(!log.contains("otto (page, by"), "{log}");

    // Who gets an account of this server is whom that says.
    site.add_user("tom", "viewer", PASSWORD)?;
    ensure!(status(&tom, "/machines")? == 303);
    site.run(&["user", "rm", "tom"])?;

    slapd.kill()?;
    let begin = Instant::now();
    let away = log_in(&school.stranger()?, "tom", "tom-of-the-school")?;
    ensure!(away.status == 503 && away.body.contains("only accounts of this server"), "{away:?}");
    ensure!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    ensure!(log_in(&school.stranger()?, "otto", PASSWORD)?.status == 303, "he needs no directory");
    ensure!(status(&anna, "/users")? == 200, "what has begun goes on");
    servers.stop()?;

    silent(school, &anna)?;
    // What lets nobody in any more lets nobody in who has a session.
    school.configure(None)?;
    let servers = site.serve()?;
    ensure!(status(&anna, "/users")? == 303);
    servers.stop()
}

/// While one waits for a directory that does not answer, others are let in.
fn silent(school: &School, anna: &Browser<'_>) -> Result<()> {
    let strange = school.strange(1390, "")?;
    school.configure(Some(&school.searching("ldap://localhost:1390")))?;
    let servers = school.site.serve()?;
    ensure!(status(anna, "/users")? == 200, "a session ends by a restart");
    let patient = school.stranger()?;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| log_in(&patient, "tom", "tom-of-the-school"));
        std::thread::sleep(Duration::from_millis(500));
        let otto = log_in(&school.stranger()?, "otto", PASSWORD)?;
        ensure!(otto.status == 303 && begin.elapsed() < Duration::from_secs(4), "{otto:?}");
        ensure!(!slow.is_finished());
        let slow = slow.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
        ensure!(slow.status == 503, "{slow:?}");
        ensure!(begin.elapsed() < Duration::from_secs(9), "{:?}", begin.elapsed());
        Ok(())
    })?;
    strange.kill()?;
    servers.stop()
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        if is_so()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    anyhow::bail!("{what} takes too long")
}

#[test]
fn a_test_of_a_login_says_which_step_fails() {
    if require("a_test_of_a_login_says_which_step_fails", &NEEDS) {
        let school = School::found("ldap-steps").unwrap_or_else(|error| panic!("{error:#}"));
        which_step(&school).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn which_step(school: &School) -> Result<()> {
    let site = &school.site;
    let slapd = school.slapd()?;
    let no_ldap = school.strange(1391, "HTTP/1.1 400 Bad Request")?;
    let silent = school.strange(1392, "")?;
    site.add_user("otto", "viewer", PASSWORD)?;
    let told = school.test_login("anna", "x")?;
    ensure!(!told.0 && told.1.contains("no directory is configured"), "{told:?}");

    let folder = school.folder.display();
    let tls = school.searching("ldap://localhost:1389");
    let from_first = school.searching("ldaps://127.0.0.1:1636");
    let plain = format!("{}starttls = false\n", school.searching("ldap://127.0.0.1:1389"));
    let by_name = format!(
        "url = \"ldaps://localhost:1636\"\nca = \"{folder}/ca-cert.pem\"\nuser_dn = \"uid={{name}},{PEOPLE}\"\n"
    );
    let found = format!("found uid=anna,{PEOPLE}");
    for (ldap, steps) in [
        (&tls, ["connected to 127.0.0.1:1389", "encrypted, with", found.as_str()].as_slice()),
        (&from_first, &["encrypted, with a certificate for 127.0.0.1", found.as_str()]),
        (&plain, &["connected to 127.0.0.1:1389", found.as_str()]),
        (&by_name, &["encrypted, with a certificate for localhost"]),
    ] {
        school.configure(Some(ldap))?;
        let (is_in, told) = school.test_login("anna", "anna-of-the-school")?;
        let mut wanted = steps.to_vec();
        wanted.extend(["in cn=r102,ou=groups,dc=school,dc=example: teacher"]);
        wanted.extend(["cn=gone,ou=groups,dc=school,dc=example: there is no such group"]);
        wanted.extend(["anna: would be let in as admin"]);
        let missing = wanted.into_iter().find(|line| !told.contains(line));
        ensure!(is_in && missing.is_none(), "{missing:?} is missing: {told}");
        let told = site.run(&["check"]).unwrap_or_else(|error| format!("{error:#}"));
        ensure!(told.contains("ok    directory ldap") && told.contains("it answers"), "{told}");
    }
    for (ldap, name, password, why) in [
        (&tls, "anna", "wrong", "refuses the password of uid=anna"),
        (&by_name, "anna", "wrong", "refuses the password of uid=anna"),
        (&by_name, "nobody-there", "x", "or there is no such entry"),
        (&tls, "anna", " ", "refuses the password of uid=anna"),
        (&tls, "eve", "eve-of-the-school", "is in none of the groups"),
        (&tls, "zoe", "x", "no entry has this name"),
        (&tls, "twin", "twin-of-the-school", "several entries have this name"),
        (&tls, "otto", "otto-of-the-school", "has an account of this server"),
        (&tls, "root", "root-of-the-school", "is what the audit log calls others"),
    ] {
        school.configure(Some(ldap))?;
        let (is_in, told) = school.test_login(name, password)?;
        ensure!(!is_in && told.contains(why), "{name}: {told}");
    }
    for (ldap, why) in [
        (school.searching("ldaps://no-such-host.invalid"), "the address of no-such-host.invalid"),
        (school.searching("ldaps://127.0.0.1:1399"), "127.0.0.1:1399 can't be connected to"),
        (from_first.replace("ca = ", "# "), "no TLS with 127.0.0.1"),
        // The certificate names addresses, of which this is none.
        (school.searching("ldaps://127.0.0.2:1636"), "127.0.0.2:1636 can't be connected to"),
        (school.searching("ldaps://127.0.0.1:1389"), "no TLS with 127.0.0.1"),
        (tls.replace("/password\"", "/wrong\""), "refuses the login as cn=bootlace"),
        (tls.replace("/password\"", "/none\""), "/none can't be read"),
        (tls.replace("base = \"dc=school", "base = \"dc=shool"), "the search below base"),
        (school.searching("ldap://127.0.0.1:1391"), "it does not speak LDAP here"),
        (school.searching("ldap://127.0.0.1:1392"), "no answer within 5 s"),
    ] {
        school.configure(Some(&ldap))?;
        let begin = Instant::now();
        let (is_in, told) = school.test_login("anna", "anna-of-the-school")?;
        ensure!(!is_in && told.contains("can't be asked") && told.contains(why), "{why}: {told}");
        ensure!(begin.elapsed() < Duration::from_secs(9), "{why}: {:?}", begin.elapsed());
    }
    let told = site.run(&["check"]).unwrap_or_else(|error| format!("{error:#}"));
    ensure!(told.contains("note  directory ldap://127.0.0.1:1392"), "{told}");
    for daemon in [slapd, no_ldap, silent] {
        daemon.kill()?;
    }
    Ok(())
}
