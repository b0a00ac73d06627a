//! TLS for the control API over TCP, where the configuration names a certificate: reads certificate and key, again when a
//! file changes (certificates are renewed), and speaks with clients by rustls. Who may ask for what is `access`' business.
use crate::os::read;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

/// Size of a file with certificates or a key, in bytes.
const PEM_BYTES_MAX: u64 = 256 * 1024;

/// Time to read one, in milliseconds: it may be a pipe.
const PEM_READ_TIMEOUT_MS: u64 = 1_000;

/// Time for a client's handshake, in milliseconds.
const HANDSHAKE_TIMEOUT_MS: u64 = 5_000;

/// The first byte of a client that speaks TLS: a record of the handshake (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Told to a client that speaks HTTP.
const NOT_HTTP: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\n\r\n\
                        {\"error\":\"this address speaks TLS: use https://\"}\n";

/// Why TLS cannot be had.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has no certificate: it needs the text from BEGIN CERTIFICATE to END CERTIFICATE", path = .0.display())]
    NoCertificate(PathBuf),
    #[error("{path} has no private key: it needs the text from BEGIN PRIVATE KEY to END PRIVATE KEY", path = .0.display())]
    NoKey(PathBuf),
    #[error("other users can read or write the key in {path}; run: chmod 600 {path}", path = .0.display())]
    OpenKey(PathBuf),
    #[error("{certificate} and {key} cannot be used together: {source}", certificate = .certificate.display(), key = .key.display())]
    Pair { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// Certificate and key, as they were read last.
#[derive(Debug)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    config: Arc<ServerConfig>,
    /// What the files looked like.
    stamps: [Stamp; 2],
}

/// When and what a file was. `None`: it cannot be looked at.
type Stamp = Option<(u64, i64, i64, u64)>;

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// A file cannot be used, or they do not belong together.
    pub fn new(certificate: &Path, key: &Path) -> Result<Tls, TlsError> {
        let stamps = [stamp(certificate), stamp(key)];
        let config = load(certificate, key)?;
        let last = Mutex::new(Last { config, stamps });
        Ok(Tls { certificate: certificate.to_owned(), key: key.to_owned(), last })
    }

    /// What a new client gets: read again if a file has changed. Files that cannot be used change nothing.
    fn config(&self) -> Arc<ServerConfig> {
        let stamps = [stamp(&self.certificate), stamp(&self.key)];
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if stamps != last.stamps {
            // Said once: until they change again.
            last.stamps = stamps;
            match load(&self.certificate, &self.key) {
                Ok(config) => {
                    log::info!("[control]: read the certificate in {} again", self.certificate.display());
                    last.config = config;
                }
                Err(e) => log::warn!("[control]: {e}; the previous certificate stays in use"),
            }
        }
        Arc::clone(&last.config)
    }

    /// The handshake with a client.
    ///
    /// # Errors
    /// It fails, or takes too long. A client that speaks HTTP is told so.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let handshake = async {
            let mut first = [0];
            if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE_RECORD {
                let _ = stream.try_write(NOT_HTTP.as_bytes());
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak TLS"));
            }
            TlsAcceptor::from(self.config()).accept(stream).await
        };
        let time = Duration::from_millis(HANDSHAKE_TIMEOUT_MS);
        tokio::time::timeout(time, handshake).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn stamp(path: &Path) -> Stamp {
    let of = |found: Metadata| (found.ino(), found.mtime(), found.mtime_nsec(), found.size());
    std::fs::metadata(path).ok().map(of)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let error = |source| TlsError::Read { path: path.to_owned(), source };
    read::open(path).and_then(|file| read::whole_file(file, PEM_BYTES_MAX, PEM_READ_TIMEOUT_MS)).map_err(error)
}

fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(certificate)?).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| TlsError::NoCertificate(certificate.to_owned()))?;
    let text = read(key)?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsError::NoKey(key.to_owned()))?;
    if std::fs::metadata(key).is_ok_and(|found| found.mode() & 0o007 != 0) {
        return Err(TlsError::OpenKey(key.to_owned()));
    }
    let pair = |source| TlsError::Pair { certificate: certificate.to_owned(), key: key.to_owned(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(pair)?;
    Ok(Arc::new(config))
}
