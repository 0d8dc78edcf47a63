//! Sends alerts, by mail and by webhook. What is sent, and when, `service` decides.

mod mail;
mod text;
mod webhook;

pub(crate) use text::Message;

use crate::config::{AlertsConfig, MailConfig, WebhookConfig};
use crate::outbound::{Failed, Patience};
use service::{Channel, Service};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it is asked whether something is to be sent.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long finding a name, connecting and each answer may take.
const PATIENCE: Patience = Patience::Each(Duration::from_secs(20));

/// A way by which alerts go.
pub(crate) enum Way {
    Mail(MailConfig),
    Webhook(WebhookConfig),
}

/// Those that are configured.
pub(crate) fn ways(config: &AlertsConfig) -> Vec<Way> {
    let mail = config.mail.clone().map(Way::Mail);
    mail.into_iter().chain(config.webhook.clone().map(Way::Webhook)).collect()
}

impl Way {
    pub(crate) const fn channel(&self) -> Channel {
        match self {
            Self::Mail(_) => Channel::Mail,
            Self::Webhook(_) => Channel::Webhook,
        }
    }

    /// To whom it goes, in words.
    pub(crate) fn whither(&self) -> String {
        match self {
            Self::Mail(mail) => {
                let to: Vec<String> = mail.to.iter().map(|to| to.email.to_string()).collect();
                format!("mail to {} by {}:{}", to.join(", "), mail.host, mail.port)
            }
            // What stands behind the host is often a secret.
            Self::Webhook(hook) => format!("webhook at {}", hook.url.host().unwrap_or_default()),
        }
    }

    /// To whom it went, in words, when the server has refused these.
    pub(crate) fn whither_but(&self, refused: &[Failed]) -> String {
        let Self::Mail(mail) = self else { return self.whither() };
        let is_refused = |to: &str| refused.iter().any(|failed| failed.whom.as_deref() == Some(to));
        let to = mail.to.iter().map(|to| to.email.to_string()).filter(|to| !is_refused(to));
        format!("mail to {} by {}:{}", to.collect::<Vec<_>>().join(", "), mail.host, mail.port)
    }

    /// Sends a message. Returns what is odd about it all the same, each with what helps. Each step has a deadline.
    ///
    /// # Errors
    /// It was not taken.
    pub(crate) async fn send(&self, message: &Message) -> Result<Vec<Failed>, Failed> {
        match self {
            Self::Mail(config) => mail::send(config, message).await,
            Self::Webhook(config) => webhook::send(config, message).await.map(|()| Vec::new()),
        }
    }
}

/// Sends what is due by one way, until `stop`. Nobody waits for it.
pub(crate) async fn run(way: Way, service: Service, stop: CancellationToken) {
    let sending = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let Some(alert) = service.alert_due(way.channel()) else { continue };
            let sent = way.send(&Message::of(&alert)).await;
            match &sent {
                Ok(odd) => {
                    let n = alert.found.len() + alert.resolved.len() + alert.passed.len();
                    tracing::info!(by = way.channel().word(), findings = n, "alert sent");
                    for odd in odd {
                        tracing::warn!(by = way.channel().word(), "{odd}: {}", odd.help);
                    }
                }
                Err(failed) => {
                    tracing::warn!(by = way.channel().word(), "alert not sent: {failed}");
                }
            }
            let sent = sent
                .map(|odd| u32::try_from(odd.len()).unwrap_or(u32::MAX))
                .map_err(|failed| failed.to_string());
            service.alert_done(way.channel(), alert, sent).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = sending => {}
    }
}
