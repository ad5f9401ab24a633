//! Certificates for cells that talk TLS: made by `holdfastd certs`, as a user would, and wrong ones too.

use std::path::PathBuf;
use std::process::Command;

use holdfast::{Cell, ConnectError, Tls};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

use crate::cluster::{CELL, Cluster};
use crate::process::Programs;
use crate::replica::Replica;

/// A directory with a CA, and what it has signed. Deleted when dropped.
#[derive(Debug)]
pub struct Certs {
    dir: TempDir,
    programs: Programs,
    cell: String,
}

impl Certs {
    /// A CA, certificates of three replicas at 127.0.0.1, and of these clients.
    ///
    /// # Panics
    ///
    /// If `holdfastd certs` fails.
    #[must_use]
    pub fn make(programs: Programs, clients: &[&str]) -> Self {
        Self::of_cell(programs, CELL, clients)
    }

    /// The same with a CA of its own, for a cell of this name.
    ///
    /// # Panics
    ///
    /// If `holdfastd certs` fails.
    #[must_use]
    pub fn of_cell(programs: Programs, cell: &str, clients: &[&str]) -> Self {
        let dir = TempDir::with_prefix("holdfast-e2e-certs-").expect("a temporary directory can be made");
        let certs = Self { dir, programs, cell: cell.to_owned() };
        certs.sign_replicas("127.0.0.1");
        let clients: Vec<String> = clients.iter().map(|client| format!("--client={client}")).collect();
        certs.run(&clients);
        certs
    }

    /// Makes the replicas' certificates anew, for replicas at this host.
    ///
    /// # Panics
    ///
    /// If `holdfastd certs` fails.
    pub fn sign_replicas(&self, host: &str) {
        let mut arguments: Vec<String> = (1..=3).map(|id| format!("--replica={id}={host}")).collect();
        arguments.push("--force".to_owned());
        self.run(&arguments);
    }

    fn run(&self, arguments: &[String]) {
        let mut command = Command::new(self.programs.replica);
        command.arg("certs").arg("--dir").arg(self.dir.path()).args(["--cell", &self.cell]).args(arguments);
        let output = command.output().expect("the program was built with the tests");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Signs a certificate of `admin` that has expired.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn expired(&self) -> Tls {
        let read = |name| std::fs::read_to_string(self.file(name)).expect("the CA is there");
        let ca = KeyPair::from_pem(&read("ca-key.pem")).expect("it is a key");
        let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), ca).expect("it is a CA");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "admin");
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &issuer).expect("the CA can sign");
        self.nobody().identity(certificate.pem(), key.serialize_pem())
    }

    /// A file of the directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Trusts this CA, and shows no certificate.
    pub fn nobody(&self) -> Tls {
        Tls::new().ca_file(self.file("ca.pem"))
    }

    /// Trusts this CA, and shows the certificate of this client.
    pub fn tls(&self, client: &str) -> Tls {
        self.shows(self.nobody(), &format!("client-{client}"))
    }

    /// Shows the certificate of this name, which is also the beginning of its file's.
    pub fn shows(&self, tls: Tls, name: &str) -> Tls {
        tls.identity_files(self.file(&format!("{name}.pem")), self.file(&format!("{name}-key.pem")))
    }

    /// The cluster as a client with these certificates sees it.
    ///
    /// # Errors
    ///
    /// Why they cannot be used.
    pub fn cell(&self, cluster: &Cluster, tls: &Tls) -> Result<Cell, ConnectError> {
        let addresses = cluster.cell().addresses();
        Cell::builder().addresses(addresses).tls(tls.clone()).connect()
    }

    /// Has a replica use the certificate that was made for it.
    pub fn configure(&self, replica: &mut Replica) {
        self.configure_as(replica, &format!("replica-{}", replica.id()));
    }

    /// Has a replica use the certificate of this name.
    pub fn configure_as(&self, replica: &mut Replica, name: &str) {
        let path = |file: &str| self.file(file).display().to_string();
        replica.set("tls-ca", path("ca.pem"));
        replica.set("tls-certificate", path(&format!("{name}.pem")));
        replica.set("tls-key", path(&format!("{name}-key.pem")));
    }
}
