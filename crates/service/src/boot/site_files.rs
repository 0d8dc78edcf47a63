//! The files that a boot lays over its machine's root.

use super::words::Belief;
use crate::error::Error;
use crate::service::Service;
use initcfg::{
    FILES_NONCE_BYTES, FilesAsked, Laid, LaidPath, LaidWhat, OnlyIf, Overlay, seal_files,
};
use model::{
    Boot, FileMode, FileOwner, Machine, Placeholder, Seat, SiteFile, SiteFileKind, fill_template,
};
use std::net::Ipv4Addr;

impl Service {
    /// Whether a boot of the machine is to fetch files. A root of another server has another system than the image's, and gets
    /// none; nor does an image that is changed there, or all would have them who get that.
    pub(super) async fn has_files(&self, machine: &Machine, boot: &Boot) -> Result<bool, Error> {
        let is_used_otherwise = machine.edit.is_some() || machine.capture.is_some();
        if is_used_otherwise || boot.root.is_some_and(|root| root.is_foreign()) {
            return Ok(false);
        }
        let (room, name) = (machine.room.clone(), machine.name.clone());
        let read = self.database().read(move |tables| tables.has_site_files(room.as_ref(), &name));
        read.await
    }

    /// The files of the boot of the machine at this address, sealed by its secret; `None`: who asks does not know that.
    ///
    /// # Errors
    /// The database can't be read, or the files can't be sealed.
    pub async fn sealed_files(
        &self,
        address: Ipv4Addr,
        asked: FilesAsked,
    ) -> Result<Option<Vec<u8>>, Error> {
        let FilesAsked { boot, tag } = asked;
        let view = self.view();
        let Some(mac) = view.owner(address) else { return Ok(None) };
        let Some(known) = view.boot(mac, boot) else { return Ok(None) };
        let text = FilesAsked::text(boot);
        // Who listens has the first secret, if another is exchanged inside of TLS.
        let token = known.proof.mixed().or(known.proof.token);
        let Some(token) = token.filter(|token| token.tag(&text) == tag) else {
            self.refuse_words(mac, boot, "its files are asked for without the secret of its boot");
            return Ok(None);
        };
        if self.believe(mac, boot, &text, Some(tag)) != Belief::Proven {
            return Ok(None);
        }
        let Some(machine) = view.site.machine_by_mac(mac) else { return Ok(None) };
        let overlay = self.overlay_of(machine, &known.boot, address).await?;
        let mut nonce = [0; FILES_NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| Error::NoRandomness)?;
        let file = overlay.to_file().ok();
        let sealed = file.and_then(|file| seal_files(&token, boot, nonce, &file));
        tracing::debug!(machine = %machine.name, boot, n = overlay.entries.len(), "files handed out");
        sealed.map(Some).ok_or(Error::FilesUnfit(machine.name.clone()))
    }

    /// What is laid over the root of this machine in this boot.
    async fn overlay_of(
        &self,
        machine: &Machine,
        boot: &Boot,
        address: Ipv4Addr,
    ) -> Result<Overlay, Error> {
        let files = self.files_on(&machine.name).await?;
        let server = self.options().network_at(address).map(|network| network.server);
        let value = |placeholder| match placeholder {
            Placeholder::Name => machine.name.to_string(),
            Placeholder::Mac => machine.mac.to_string(),
            Placeholder::Address => address.to_string(),
            Placeholder::Room => machine.room.as_ref().map(ToString::to_string).unwrap_or_default(),
            Placeholder::Seat => machine.seat.as_ref().map(Seat::to_string).unwrap_or_default(),
            Placeholder::Image => match &boot.image {
                Some((image, _)) => image.to_string(),
                None => machine
                    .image
                    .as_ref()
                    .map(|choice| choice.image.to_string())
                    .unwrap_or_default(),
            },
            Placeholder::WriteMode => machine.write_mode.to_string(),
            Placeholder::Server => server.map(|it| it.to_string()).unwrap_or_default(),
        };
        let mut entries = Vec::new();
        for ((file, content), _) in files {
            let content = content.unwrap_or_default();
            let content = match file.template {
                false => Some(content),
                true => String::from_utf8(content)
                    .ok()
                    .and_then(|text| fill_template(&text, value).ok().map(String::into_bytes)),
            };
            let laid = content.and_then(|content| laid(file, content));
            // Each was checked when it was put.
            entries.push(laid.ok_or_else(|| Error::FilesUnfit(machine.name.clone()))?);
        }
        Ok(Overlay { entries })
    }
}

fn laid(file: SiteFile, content: Vec<u8>) -> Option<Laid> {
    let what = match file.kind {
        SiteFileKind::File => LaidWhat::File {
            content,
            mode: file.mode.map(FileMode::bits),
            owner: file.owner.map(|FileOwner(user, group)| (user, group)),
        },
        SiteFileKind::Link => LaidWhat::Link { target: file.target.unwrap_or_default() },
        SiteFileKind::Gone => LaidWhat::Nothing,
    };
    let path = LaidPath::new(&file.path)?;
    Some(Laid { path, only_if: OnlyIf::Any, what, about: String::new() })
}
