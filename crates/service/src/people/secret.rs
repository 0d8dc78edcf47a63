//! Secrets that browsers and scripts keep, and what of them is stored here.

use crate::error::Error;
use crate::store::SecretHash;

/// A secret of 32 random bytes, as text, and what is stored of it. It can't be guessed, so a fast hash is enough.
pub(super) fn new_secret(prefix: &str) -> Result<(String, SecretHash), Error> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|_| Error::NoRandomness)?;
    let text = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random));
    let hash = hash(&text);
    Ok((text, hash))
}

/// What is stored of a secret.
pub(super) fn hash(secret: &str) -> SecretHash {
    *blake3::hash(secret.as_bytes()).as_bytes()
}
