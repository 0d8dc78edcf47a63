//! A web browser for scripts: curl, inside of a namespace or not.

use crate::command::text_of;
use crate::netns::Netns;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Seconds that a page may take.
const PAGE_SECONDS: &str = "20";

/// Name of the file with cookies.
const JAR: &str = "cookies";

/// Looks at pages at one address.
#[derive(Debug)]
pub struct Browser<'a> {
    netns: Option<&'a Netns>,
    base: String,
    token: Option<String>,
    authority: Option<PathBuf>,
    cookies: Option<TempDir>,
}

/// A page, or what came instead of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status, like 200.
    pub status: u16,
    /// Where the browser is sent to; empty: nowhere.
    pub location: String,
    /// The body.
    pub body: String,
}

impl<'a> Browser<'a> {
    /// `base` is like `http://127.0.0.1:8080`; without a namespace it is one of the host.
    pub fn new(netns: Option<&'a Netns>, base: &str) -> Self {
        Self { netns, base: base.to_owned(), token: None, authority: None, cookies: None }
    }

    /// Takes certificates of this authority only, a file in PEM.
    #[must_use]
    pub fn trusting(self, authority: &Path) -> Self {
        Self { authority: Some(authority.to_owned()), ..self }
    }

    /// Keeps cookies.
    ///
    /// # Errors
    /// There is no place for them.
    pub fn with_cookies(self) -> Result<Self> {
        Ok(Self { cookies: Some(tempfile::tempdir()?), ..self })
    }

    /// The cookies that are kept, as curl writes them: a line each, with tabs between the fields.
    ///
    /// # Errors
    /// There are none.
    pub fn cookies(&self) -> Result<String> {
        let jar = self.cookies.as_ref().context("it keeps no cookies")?.path().join(JAR);
        std::fs::read_to_string(jar).context("there is no cookie")
    }

    /// Shows this token with each request.
    #[must_use]
    pub fn with_token(self, token: Option<String>) -> Self {
        Self { token, ..self }
    }

    /// Fetches a page; does not follow redirects.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.curl(path, &[])
    }

    /// Fetches JSON.
    ///
    /// # Errors
    /// Nobody answers, or not with status 200 and JSON.
    pub fn json(&self, path: &str) -> Result<Value> {
        let answer = self.get(path)?;
        ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.body);
        serde_json::from_str(&answer.body).with_context(|| format!("GET {path}: no JSON"))
    }

    /// Sends a form, as a browser without JavaScript does.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        let fields: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut arguments = vec!["--request", "POST"];
        for field in &fields {
            arguments.extend(["--data-urlencode", field]);
        }
        self.curl(path, &arguments)
    }

    fn curl(&self, path: &str, arguments: &[&str]) -> Result<Answer> {
        let url = format!("{}{path}", self.base);
        let mut command = match self.netns {
            Some(netns) => netns.command("curl", Signal::SIGKILL),
            None => Command::new("curl"),
        };
        command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", PAGE_SECONDS]);
        if let Some(token) = &self.token {
            command.arg("--header").arg(format!("Authorization: Bearer {token}"));
        }
        if let Some(authority) = &self.authority {
            command.arg("--cacert").arg(authority);
        }
        if let Some(cookies) = &self.cookies {
            let jar = cookies.path().join(JAR);
            command.arg("--cookie").arg(&jar).arg("--cookie-jar").arg(jar);
        }
        command.args(["--write-out", "\n%{http_code} %{redirect_url}"]).args(arguments).arg(&url);
        let text = text_of(&mut command)?;
        let (body, end) = text.rsplit_once('\n').unwrap_or(("", &text));
        let (status, location) = end.split_once(' ').unwrap_or((end, ""));
        Ok(Answer {
            status: status.parse().context("curl names no status")?,
            location: location.to_owned(),
            body: body.to_owned(),
        })
    }
}
