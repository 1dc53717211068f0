//! When a certificate expires, and what the log says of it: a proxy refuses an expired one, and all that it says is 503.

use std::path::Path;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::domain::clock::UnixTime;

/// A certificate that expires sooner is warned of: certificates that are renewed by themselves are renewed before.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often the certificate in use is looked at. Each look at one that has expired, or soon will, is a line of the log.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// `notAfter` (RFC 5280 section 4.1.2.5) of the first certificate of a chain; `None` if it cannot be read.
pub(super) fn of(chain: &[CertificateDer<'_>]) -> Option<UnixTime> {
    let (_, certificate) = X509Certificate::from_der(chain.first()?).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok().map(UnixTime::from_secs)
}

/// Says so if a certificate has expired or soon will.
pub(super) fn log(file: &Path, expires_at: UnixTime, now: UnixTime) {
    let file = file.display();
    let (expires, left) = (expires_at.rfc3339(), expires_at.since(now));
    if left.is_zero() {
        tracing::error!(%file, expires, "the certificate of server.tls has expired: proxies refuse it");
    } else if left < SOON {
        let hours = left.as_secs() / 3600;
        tracing::warn!(%file, expires, hours, "the certificate of server.tls expires soon");
    }
}
