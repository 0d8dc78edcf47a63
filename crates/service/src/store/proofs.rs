//! The secret of a boot, and whether the machine has shown that it knows it.

use super::transaction::{Part, Transaction};
use initcfg::{Tag, Token};
use model::BootId;
use rusqlite::{OptionalExtension as _, Row, params};
use wire::Mac;

/// How the words of a machine about one of its boots are proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The boot's secret; `None`: it was opened by an older Bootlace.
    pub(crate) token: Option<Token>,
    /// The machine has shown that it knows the secret: from then on, all that it says must be proven.
    pub(crate) is_given: bool,
}

impl Proof {
    /// Whether a text is the machine's word. A wrong tag never makes it so; none does as long as no proof was given.
    pub(crate) fn accepts(&self, text: &[u8], tag: Option<Tag>) -> bool {
        match (&self.token, tag) {
            (None, _) => true,
            (Some(_), None) => !self.is_given,
            (Some(token), Some(tag)) => token.tag(text) == tag,
        }
    }
}

impl Transaction<'_> {
    /// The proof of a boot of this NIC; `None`: there is no such boot.
    pub(crate) fn proof(&self, mac: Mac, boot: BootId) -> rusqlite::Result<Option<Proof>> {
        self.sql()
            .prepare_cached("SELECT token, is_proven FROM boot WHERE id = ?1 AND mac = ?2")?
            .query_row(params![boot, mac.to_string()], proof)
            .optional()
    }

    /// The machine has shown that it knows the secret of this boot.
    pub(crate) fn note_proof(&self, mac: Mac, boot: BootId) -> rusqlite::Result<()> {
        self.sql().execute("UPDATE boot SET is_proven = 1 WHERE id = ?1", [boot])?;
        self.touch(Part::Boot(mac));
        Ok(())
    }
}

fn proof(row: &Row<'_>) -> rusqlite::Result<Proof> {
    let token: Option<[u8; 32]> = row.get(0)?;
    Ok(Proof { token: token.map(Token::new), is_given: row.get(1)? })
}
