//! Alerts: findings that are told to people who look at no page.

use crate::live::{Alert, AlertCount, AlertItem};
use crate::options::Channel;
use crate::service::Service;
use crate::store::ToldAlert;
use model::Finding;

impl Service {
    /// Remembers what an earlier process has told.
    pub(super) async fn remember_alerts(&self) {
        if !self.alerts().are_wanted() {
            return;
        }
        match self.database().read(|tables| tables.told_alerts()).await {
            Ok(told) => {
                let now = self.now().moment;
                for told in told {
                    let channels = [Channel::Mail, Channel::Webhook];
                    let channel = channels.into_iter().find(|it| it.word() == told.channel);
                    if let Some(channel) = channel {
                        self.alerts().remember(channel, item(told), now);
                    }
                }
            }
            Err(error) => {
                let error = error.chain();
                tracing::warn!(error, "what alerts have told is not known, and is told again");
            }
        }
    }

    pub(super) fn look_for_alerts(&self, findings: &[Finding]) {
        self.alerts().look(findings, self.now().moment);
    }

    /// What is to be sent by this way now, if anything. Whoever sends it says by [`Service::alert_done`] what came of it,
    /// before he asks again.
    pub fn alert_due(&self, channel: Channel) -> Option<Alert> {
        self.alerts().due(channel, self.now().moment)
    }

    /// It was sent, and to how many recipients of several it was not; or why not. What was told is kept.
    pub async fn alert_done(&self, channel: Channel, alert: Alert, sent: Result<u32, String>) {
        let is_sent = sent.is_ok();
        self.alerts().done(channel, &alert, sent, self.now().moment);
        if !is_sent {
            return;
        }
        let kept = self.database().write(move |tables| {
            let note = |item: &AlertItem| tables.note_alert(&row(channel, item));
            let forget = |item: &AlertItem| tables.forget_alert(&row(channel, item));
            alert.found.iter().try_for_each(note)?;
            Ok(alert.resolved.iter().chain(&alert.passed).try_for_each(forget)?)
        });
        if let Err(error) = kept.await {
            let error = error.chain();
            tracing::warn!(error, "it is not stored that an alert was sent");
        }
    }

    /// How many alerts went by each way.
    pub fn alert_counts(&self) -> Vec<AlertCount> {
        self.alerts().counts()
    }
}

fn item(told: ToldAlert) -> AlertItem {
    let ToldAlert { kind, about, subject, cause, since_unix_ms, .. } = told;
    let (level, remedy) = (kind.level(), kind.remedy().to_owned());
    AlertItem { kind, level, about, subject, cause, remedy, since_unix_ms }
}

fn row(channel: Channel, item: &AlertItem) -> ToldAlert {
    ToldAlert {
        channel: channel.word().to_owned(),
        kind: item.kind,
        about: item.about.clone(),
        subject: item.subject.clone(),
        cause: item.cause.clone(),
        since_unix_ms: item.since_unix_ms,
    }
}
