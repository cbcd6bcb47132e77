//! Chance, from the system's own source: passwords, cookies and names that nobody can guess.

/// The system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub(crate) struct NoRandomness;

/// So many random bytes.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// A password of 192 bits, in letters and digits that no configuration file needs to quote.
pub(crate) fn password() -> Result<String, NoRandomness> {
    Ok(hex::encode(bytes::<24>()?))
}

/// A few letters and digits that tell two of a kind apart.
pub(crate) fn suffix() -> Result<String, NoRandomness> {
    Ok(hex::encode(bytes::<4>()?))
}
