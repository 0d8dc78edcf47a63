//! The secret of a boot, and whether the machine has shown that it knows it.

use super::transaction::{Part, Transaction};
use initcfg::{Tag, Token};
use model::BootId;
use rusqlite::{OptionalExtension as _, Row, params};
use wire::Mac;

/// In `is_proven`: a proof was given, and the boot is the machine's. A Bootlace of before November 2026 writes it for
/// the first only, and takes [`GIVEN`] for the same.
const ADMITTED: u32 = 1;

/// In `is_proven`: a proof was given, but the machine may still run in an earlier boot.
const GIVEN: u32 = 2;

/// How the words of a machine about one of its boots are proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The boot's secret; `None`: it was opened by an older Bootlace.
    pub(crate) token: Option<Token>,
    /// What is told inside of TLS only, and is mixed into that secret: the first word that the mixed one proves makes the
    /// former void.
    pub(crate) mix: Option<Token>,
    /// Whoever is in this boot has shown that he knows the secret: from then on, all that he says must be proven.
    pub(crate) is_given: bool,
    /// The boot is the machine's: none that it has proven before goes on any more.
    pub(crate) is_admitted: bool,
}

impl Proof {
    /// Whether a text is the machine's word. A wrong tag never makes it so; none does as long as no proof was given.
    pub(crate) fn accepts(&self, text: &[u8], tag: Option<Tag>) -> bool {
        match (&self.token, tag) {
            (None, _) => true,
            (Some(_), None) => !self.is_given,
            (Some(token), Some(tag)) => {
                token.tag(text) == tag || self.mixed().is_some_and(|mixed| mixed.tag(text) == tag)
            }
        }
    }

    /// The secret that only a machine knows which was told the rest of it inside of TLS.
    pub(crate) fn mixed(&self) -> Option<Token> {
        Some(self.token?.mixed(&self.mix?))
    }
}

impl Transaction<'_> {
    /// The proof of a boot of this NIC; `None`: there is no such boot.
    pub(crate) fn proof(&self, mac: Mac, boot: BootId) -> rusqlite::Result<Option<Proof>> {
        self.sql()
            .prepare_cached(
                "SELECT boot.token, is_proven, mixed_token.token FROM boot \
                 LEFT JOIN mixed_token ON mixed_token.boot = boot.id WHERE id = ?1 AND mac = ?2",
            )?
            .query_row(params![boot, mac.to_string()], proof)
            .optional()
    }

    /// Exchanges the secret of a boot of this NIC that nobody has shown yet; whether there is such a boot, and it had the
    /// former secret until now.
    pub(crate) fn renew_token(
        &self,
        mac: Mac,
        boot: BootId,
        former: Option<Token>,
        token: Token,
        mix: Option<Token>,
    ) -> rusqlite::Result<bool> {
        let n_rows = self
            .sql()
            .prepare_cached(
                "UPDATE boot SET token = ?3 WHERE id = ?1 AND mac = ?2 AND token IS ?4 AND is_proven = 0",
            )?
            .execute(params![
                boot,
                mac.to_string(),
                token.as_bytes(),
                former.as_ref().map(Token::as_bytes)
            ])?;
        if n_rows > 0 {
            self.sql().execute("DELETE FROM mixed_token WHERE boot = ?1", [boot])?;
        }
        if let (Some(mix), 1..) = (mix, n_rows) {
            let insert = "INSERT INTO mixed_token VALUES (?1, ?2)";
            self.sql().execute(insert, params![boot, mix.as_bytes()])?;
        }
        self.touch(Part::Boot(mac));
        Ok(n_rows > 0)
    }

    /// Somebody has shown that he knows what is told inside of TLS: from now on only who knows that is the machine.
    pub(crate) fn note_mixed(&self, mac: Mac, boot: BootId, mixed: Token) -> rusqlite::Result<()> {
        if self.sql().execute("DELETE FROM mixed_token WHERE boot = ?1", [boot])? > 0 {
            let settle = "UPDATE boot SET token = ?2 WHERE id = ?1";
            self.sql().execute(settle, params![boot, mixed.as_bytes()])?;
        }
        self.note_proof(mac, boot, mixed)
    }

    /// Somebody has shown that he knows this secret of this boot.
    pub(crate) fn note_proof(&self, mac: Mac, boot: BootId, token: Token) -> rusqlite::Result<()> {
        self.sql()
            .prepare_cached(
                "UPDATE boot SET is_proven = ?3 WHERE id = ?1 AND token = ?2 AND is_proven = 0",
            )?
            .execute(params![boot, token.as_bytes(), GIVEN])?;
        self.touch(Part::Boot(mac));
        Ok(())
    }

    /// This boot, in which a proof was given, is the machine's. Returns whether that is news.
    pub(crate) fn note_admission(&self, mac: Mac, boot: BootId) -> rusqlite::Result<bool> {
        let n_rows = self
            .sql()
            .prepare_cached("UPDATE boot SET is_proven = ?2 WHERE id = ?1 AND is_proven = ?3")?
            .execute(params![boot, ADMITTED, GIVEN])?;
        self.touch(Part::Boot(mac));
        Ok(n_rows > 0)
    }
}

fn proof(row: &Row<'_>) -> rusqlite::Result<Proof> {
    let token: Option<[u8; 32]> = row.get(0)?;
    let is_proven: u32 = row.get(1)?;
    let mix: Option<[u8; 32]> = row.get(2)?;
    Ok(Proof {
        mix: mix.map(Token::new),
        token: token.map(Token::new),
        is_given: is_proven != 0,
        is_admitted: is_proven == ADMITTED,
    })
}
