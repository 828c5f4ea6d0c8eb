//! TLS towards KEDA, mutual if it is told an authority for clients.
//!
//! The files are read anew for each connection, of which KEDA makes one for all ScaledObjects: whoever renews a
//! certificate (cert-manager, or kubelet with a Secret) need not restart anything. Files that cannot be used at
//! the moment, half of them renewed perhaps, leave the last good ones in force.

#[cfg(test)]
mod tests;

use futures::{Stream, stream};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
        server::{VerifierBuilderError, WebPkiClientVerifier},
    },
    server::TlsStream,
};

/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many handshakes may be under way; more connections wait until they are accepted.
const HANDSHAKES: usize = 64;
/// How long accepting pauses after an error: the process has no files left, for example.
const PAUSE: Duration = Duration::from_millis(100);

/// Where certificate, key and authority are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and those between it and an authority, in this order.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose certificates clients have to show one of; `None`: they need none.
    pub client_ca: Option<PathBuf>,
}

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("{flag}: {}: {error}", path.display())]
    Read {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file that does not hold what it should.
    #[error("{flag}: {}: {error}; it has to hold {expected} in PEM", path.display())]
    Pem {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What it has to hold.
        expected: &'static str,
        /// What is wrong with it.
        error: pem::Error,
    },
    /// Certificate and key are none, or not each other's.
    #[error("--tls-cert and --tls-key cannot be used together: {0}")]
    Identity(rustls::Error),
    /// An authority that is none.
    #[error("--tls-client-ca: {}: {error}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: rustls::Error,
    },
    /// Authorities by which nobody can be known.
    #[error("--tls-client-ca: {}: {error}", path.display())]
    Verifier {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: VerifierBuilderError,
    },
}

/// A TLS server's side.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    last: Arc<ServerConfig>,
}

// === impl Tls ===

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// If TLS cannot be served with them; names the file and what is wrong.
    pub fn load(files: Files) -> Result<Self, TlsError> {
        let last = files.load()?;
        Ok(Self { files, last })
    }

    /// What the files say now, or said when they could be used last.
    fn config(&mut self) -> Arc<ServerConfig> {
        match self.files.load() {
            Ok(config) => self.last = config,
            Err(error) => tracing::warn!(%error, "TLS goes on with the files as they were"),
        }
        Arc::clone(&self.last)
    }

    /// The connections of a listener whose handshakes succeed, until the stream is dropped.
    pub fn accept(self, listener: TcpListener) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
        let (sender, receiver) = mpsc::channel(HANDSHAKES);
        tokio::spawn(self.run(listener, sender));
        stream::unfold(receiver, |mut receiver| async { Some((Ok(receiver.recv().await?), receiver)) })
    }

    async fn run(mut self, listener: TcpListener, connections: mpsc::Sender<TlsStream<TcpStream>>) {
        let places = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            // It is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = connections.closed() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "TLS: cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // It fails on a connection that is gone, which the handshake notices.
            _ = stream.set_nodelay(true);
            let acceptor = TlsAcceptor::from(self.config());
            let connections = connections.clone();
            tokio::spawn(async move {
                match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    // Nobody takes connections any more at the end.
                    Ok(Ok(stream)) => _ = connections.send(stream).await,
                    Ok(Err(error)) => tracing::warn!(%peer, %error, "TLS: the handshake failed"),
                    Err(_) => tracing::warn!(%peer, "TLS: the handshake took too long"),
                }
                drop(place);
            });
        }
    }
}

// === impl Files ===

impl Files {
    fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let certs = certificates("--tls-cert", &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&read("--tls-key", &self.key)?)
            .map_err(|error| bad("--tls-key", &self.key, "a private key", error))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Identity)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for cert in certificates("--tls-client-ca", path)? {
                    roots.add(cert).map_err(|error| TlsError::Authority { path: path.clone(), error })?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| TlsError::Verifier { path: path.clone(), error })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(certs, key).map_err(TlsError::Identity)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(flag, path)?;
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certs {
        Ok(certs) if certs.is_empty() => Err(bad(flag, path, "a certificate", pem::Error::NoItemsFound)),
        Ok(certs) => Ok(certs),
        Err(error) => Err(bad(flag, path, "a certificate", error)),
    }
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Read { flag, path: path.to_owned(), error })
}

fn bad(flag: &'static str, path: &Path, expected: &'static str, error: pem::Error) -> TlsError {
    TlsError::Pem { flag, path: path.to_owned(), expected, error }
}
