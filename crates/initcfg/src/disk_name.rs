//! What a machine asks the storage server for over NBD, and how it proves that the disk is its own.

use crate::token::{NotHex, Token, from_hex, to_hex};
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// Length of a key, a nonce and a proof in bytes.
const BYTES: usize = 32;

/// Separates this use of a token from all others.
const KEY_CONTEXT: &str = "bootlace 2026-11-27 disk key of a boot";

/// Separates tokens that are made of two from all others.
const MIX_CONTEXT: &str = "bootlace 2026-11-27 two tokens of a boot";

/// What every proof begins with: a tag of something else is none.
const PROOF_CONTEXT: &[u8] = b"bootlace nbd proof 1\n";

/// Behind the name of a disk, whose proof it carries: the client does not want the disk, but what replaces the secret that
/// it has proven, which came over the plain network. Answered inside of TLS only, with a [`HostConfig`](crate::HostConfig)
/// whose token is to be [mixed](Token::mixed) into that secret.
pub const SECRET_SUFFIX: &str = "&secret";

/// What a refusal begins with that passes without anybody's new boot: the storage server has no room for what the machine
/// will write. Whoever reads that waits, for as long as it takes.
pub const NO_ROOM_YET: &str = "no room yet: ";

/// What stands before the nonce in a challenge.
const CHALLENGE_MARK: &str = "; challenge ";

/// By this a machine proves that a disk is its own: known to its init and keeper, to the boot server and to the
/// storage server, which does not learn the boot's [`Token`] from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DiskKey([u8; BYTES]);

/// A number that the storage server has never used before, and takes an answer to only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce([u8; BYTES]);

/// Proves that somebody who knows a [`DiskKey`] answers to a [`Nonce`], for one disk, boot and generation.
/// Comparing takes the same time wherever the first difference is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Proof(blake3::Hash);

/// The name by which a machine opens its disk, or `MACHINE+DISK` one beside that ([`DiskTag`](crate::DiskTag)): `MACHINE?boot=B&g=G&proof=HEX`, or `MACHINE?g=G` or `MACHINE` for a
/// disk without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskName<'a> {
    /// Name of the machine, or of that and the disk, which nobody has checked.
    pub machine: &'a str,
    /// Number of the connection: each new one of a boot has a larger one, and ends those with smaller ones.
    pub generation: u32,
    /// Whose disk it is; `None`: whoever has the machine's address.
    pub claim: Option<Claim>,
}

/// "I am the machine in this boot."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Number of the boot.
    pub boot: u64,
    /// That it is true.
    pub proof: Proof,
}

impl Token {
    /// The key of this boot's disk. The token can't be found out from it.
    pub fn disk_key(&self) -> DiskKey {
        DiskKey(blake3::derive_key(KEY_CONTEXT, self.as_bytes()))
    }

    /// The token that only who knows both can make.
    #[must_use]
    pub fn mixed(&self, other: &Self) -> Self {
        let mut hash = blake3::Hasher::new_derive_key(MIX_CONTEXT);
        hash.update(self.as_bytes()).update(other.as_bytes());
        Self::new(*hash.finalize().as_bytes())
    }
}

impl DiskKey {
    /// The key with these bytes, which must be random.
    pub const fn new(random: [u8; BYTES]) -> Self {
        Self(random)
    }

    /// The proof that answers to this nonce.
    pub fn prove(&self, nonce: &Nonce, machine: &str, boot: u64, generation: u32) -> Proof {
        let mut hash = blake3::Hasher::new_keyed(&self.0);
        // All but the last have one length each.
        hash.update(PROOF_CONTEXT).update(&nonce.0).update(&boot.to_be_bytes());
        hash.update(&generation.to_be_bytes()).update(machine.as_bytes());
        Proof(hash.finalize())
    }

    /// The key in hexadecimal digits, for where it is kept. Not `Display`: a secret must not get into a log by
    /// accident.
    pub fn to_hex(&self) -> String {
        to_hex(&self.0)
    }
}

impl fmt::Debug for DiskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskKey(secret)")
    }
}

impl FromStr for DiskKey {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        from_hex(text).map(Self)
    }
}

impl Nonce {
    /// The nonce with these bytes, which must be random.
    pub const fn new(random: [u8; BYTES]) -> Self {
        Self(random)
    }

    /// What whoever asks for a disk is told: a sentence for people that ends with the nonce.
    pub fn challenge(&self) -> String {
        let nonce = to_hex(&self.0);
        alloc::format!(
            "a machine's disk is only for that machine in its last boot, which must prove \
             itself{CHALLENGE_MARK}{nonce}"
        )
    }

    /// The nonce of a challenge; `None`: the text is none.
    pub fn of_challenge(text: &str) -> Option<Self> {
        let (_, nonce) = text.rsplit_once(CHALLENGE_MARK)?;
        from_hex(nonce).ok().map(Self)
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

impl<'a> DiskName<'a> {
    /// Reads a name; `None`: it has neither form.
    pub fn parse(name: &'a str) -> Option<Self> {
        let Some((machine, words)) = name.split_once('?') else {
            return Some(Self { machine: name, generation: 0, claim: None });
        };
        if let Some(generation) = words.strip_prefix("g=") {
            return Some(Self { machine, generation: number(generation)?, claim: None });
        }
        let (boot, words) = words.strip_prefix("boot=")?.split_once("&g=")?;
        let (generation, proof) = words.split_once("&proof=")?;
        let proof = Proof(blake3::Hash::from_bytes(from_hex(proof).ok()?));
        let claim = Some(Claim { boot: number(boot)?, proof });
        Some(Self { machine, generation: number(generation)?, claim })
    }
}

/// The form that [`DiskName::parse`] reads.
impl fmt::Display for DiskName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, generation, claim } = self;
        match claim {
            None => write!(f, "{machine}?g={generation}"),
            Some(Claim { boot, proof }) => {
                let proof = to_hex(proof.0.as_bytes());
                write!(f, "{machine}?boot={boot}&g={generation}&proof={proof}")
            }
        }
    }
}

/// A number in digits only: `parse` takes a sign, too.
fn number<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(feature = "serde")]
impl serde::Serialize for DiskKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for DiskKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const TOKEN: Token = Token::new([7; 32]);
    const NONCE: Nonce = Nonce::new([9; BYTES]);

    fn claim(boot: u64) -> DiskName<'static> {
        let proof = TOKEN.disk_key().prove(&NONCE, "lab-07", boot, 3);
        DiskName { machine: "lab-07", generation: 3, claim: Some(Claim { boot, proof }) }
    }

    #[test]
    fn a_proof_is_good_for_one_key_nonce_machine_boot_and_generation() {
        let key = TOKEN.disk_key();
        let proof = key.prove(&NONCE, "lab-07", 42, 3);
        assert!(proof == key.prove(&NONCE, "lab-07", 42, 3));
        let others = [
            Token::new([8; 32]).disk_key().prove(&NONCE, "lab-07", 42, 3),
            key.prove(&Nonce::new([8; BYTES]), "lab-07", 42, 3),
            key.prove(&NONCE, "lab-08", 42, 3),
            key.prove(&NONCE, "", 42, 3),
            key.prove(&NONCE, "lab-07", 43, 3),
            key.prove(&NONCE, "lab-07", 42, 4),
            key.prove(&NONCE, "lab-07", 42 << 8, 3),
        ];
        assert!(others.iter().all(|other| *other != proof));
    }

    #[test]
    fn the_disk_key_is_not_the_token_and_seals_no_words() {
        let key = TOKEN.disk_key();
        assert_ne!(key.to_hex(), TOKEN.to_hex());
        let as_token: Token = key.to_hex().parse().unwrap();
        assert_ne!(as_token.tag(b"line"), TOKEN.tag(b"line"));
    }

    #[test]
    fn a_mixed_token_needs_both_in_their_order() {
        let other = Token::new([8; 32]);
        let mixed = TOKEN.mixed(&other);
        assert_ne!(mixed, other.mixed(&TOKEN));
        assert_ne!(mixed, TOKEN.mixed(&TOKEN));
        assert!(![TOKEN, other].contains(&mixed));
    }

    #[test]
    fn who_asks_for_a_secret_opens_no_disk() {
        let name = alloc::format!("{}{SECRET_SUFFIX}", claim(42));
        assert_eq!(DiskName::parse(&name), None);
        assert_eq!(name.strip_suffix(SECRET_SUFFIX).and_then(DiskName::parse), Some(claim(42)));
    }

    #[test]
    fn no_secret_is_shown() {
        let (key, name) = (TOKEN.disk_key(), claim(42));
        let shown = alloc::format!("{key:?} {name:?}");
        let name = name.to_string();
        let (_, proof) = name.split_once("proof=").unwrap();
        assert!(!shown.contains(&key.to_hex()[..8]) && !shown.contains(&proof[..8]), "{shown}");
        assert_eq!(key.to_hex().parse(), Ok(key));
    }

    #[test]
    fn a_challenge_is_read_back_whole_or_not_at_all() {
        let text = NONCE.challenge();
        assert_eq!(Nonce::of_challenge(&text), Some(NONCE));
        for end in 0..text.len() {
            assert_eq!(Nonce::of_challenge(&text[..end]), None, "{}", &text[..end]);
        }
        for text in ["", "there is no export x for you", "; challenge é", "; challenge +1"] {
            assert_eq!(Nonce::of_challenge(text), None);
        }
    }

    #[test]
    fn names_are_read_back() {
        for name in [claim(42), claim(u64::MAX), DiskName { claim: None, ..claim(1) }] {
            assert_eq!(DiskName::parse(&name.to_string()), Some(name));
        }
        let bare = DiskName { machine: "lab-07", generation: 0, claim: None };
        assert_eq!(DiskName::parse("lab-07"), Some(bare));
    }

    #[test]
    fn no_prefix_of_a_claim_is_a_claim() {
        let name = claim(42).to_string();
        for end in 0..name.len() {
            let found = DiskName::parse(&name[..end]);
            assert!(found.is_none_or(|name| name.claim.is_none()), "{}", &name[..end]);
        }
        for wrong in ["?g=", "?g=+1", "?g=-1", "?g=4294967296", "?boot=1&g=1", "?proof=00", "?"] {
            assert_eq!(DiskName::parse(&alloc::format!("lab-07{wrong}")), None, "{wrong}");
        }
        for (from, to) in [("42", "+42"), ("g=3", "g= 3"), ("proof=", "proof=0"), ("&", "&&")] {
            assert_eq!(DiskName::parse(&name.replace(from, to)), None, "{from} -> {to}");
        }
    }
}
