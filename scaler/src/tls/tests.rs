use super::*;
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use std::fs;
use tempfile::TempDir;
use tokio_rustls::{TlsConnector, rustls::ClientConfig, rustls::pki_types::ServerName};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn identity(issuer: &Issuer, serial: u64) -> (String, String) {
    let mut params = CertificateParams::new(vec!["scaler".to_owned()]).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(serial.into());
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

/// The files, and where they are.
struct Bed {
    _dir: TempDir,
    files: Files,
    issuer: Issuer,
}

impl Bed {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        let files = Files { cert: at("tls.crt"), key: at("tls.key"), client_ca: Some(at("ca.crt")) };
        let bed = Self { files, issuer: authority(), _dir: dir };
        bed.renew(1);
        fs::write(bed.files.client_ca.as_ref().unwrap(), bed.issuer.pem()).unwrap();
        bed
    }

    fn renew(&self, serial: u64) {
        let (cert, key) = identity(&self.issuer, serial);
        fs::write(&self.files.cert, cert).unwrap();
        fs::write(&self.files.key, key).unwrap();
    }

    /// A client that shows a certificate of `issuer`'s, or none.
    fn client(&self, issuer: Option<&Issuer>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.issuer.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match issuer {
            None => builder.with_no_client_auth(),
            Some(issuer) => {
                let (cert, key) = identity(issuer, 9);
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

/// Connects; the server's certificate, once the server has taken the client's.
async fn connect(client: &TlsConnector, address: std::net::SocketAddr) -> io::Result<Vec<u8>> {
    use tokio::io::AsyncReadExt as _;
    let stream = TcpStream::connect(address).await?;
    let mut stream = client.connect(ServerName::try_from("scaler").unwrap(), stream).await?;
    // With TLS 1.3 a client hears of its refusal only when it reads.
    assert_eq!(stream.read(&mut [0]).await?, 0);
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
}

#[tokio::test]
async fn only_clients_of_the_authority_get_in_and_a_renewed_certificate_is_taken_up() {
    use futures::StreamExt as _;
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Tls::load(bed.files.clone()).unwrap().accept(listener);
    // Whoever got in is let go at once.
    tokio::spawn(connections.for_each(|stream| async move {
        use tokio::io::AsyncWriteExt as _;
        stream.unwrap().shutdown().await.unwrap();
    }));
    let known = bed.client(Some(&bed.issuer));
    let first = connect(&known, address).await.unwrap();
    assert!(connect(&bed.client(None), address).await.is_err(), "a client without a certificate");
    assert!(connect(&bed.client(Some(&authority())), address).await.is_err(), "another authority's client");
    bed.renew(2);
    let second = connect(&known, address).await.unwrap();
    assert_ne!(first, second);
    fs::write(&bed.files.cert, "half").unwrap();
    assert_eq!(connect(&known, address).await.unwrap(), second, "the last good one stays in force");
}

#[test]
fn what_is_wrong_names_the_flag_and_the_file() {
    let bed = Bed::new();
    let error = |files: Files| Tls::load(files).unwrap_err().to_string();
    let nowhere = PathBuf::from("/nowhere/tls.key");
    let said = error(Files { key: nowhere, ..bed.files.clone() });
    assert!(said.contains("--tls-key: /nowhere/tls.key"), "{said}");
    let said = error(Files { cert: bed.files.key.clone(), ..bed.files.clone() });
    assert!(said.contains("--tls-cert") && said.contains("a certificate in PEM"), "{said}");
    let said = error(Files { client_ca: Some(bed.files.key.clone()), ..bed.files.clone() });
    assert!(said.contains("--tls-client-ca"), "{said}");
    let other = Bed::new();
    let said = error(Files { key: other.files.key.clone(), ..bed.files.clone() });
    assert!(said.contains("--tls-cert and --tls-key"), "{said}");
}
