//! The identity file: TOML for people, under a first line that holds its version and checksum.
//!
//! Written to a temporary name, synced, renamed, and the directory synced: at every moment of a crash the file
//! is the old one or the new one, whole.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use holdfast_proto::client::v1::Settings;
use holdfast_proto::log::v1::Member;
use holdfast_state::VERSION_MAX;
use holdfast_types::ReplicaId;
use prost::Message;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Founded, Identity, IdentityError, Stage, io};
use crate::storage::sync_dir;

pub(super) const NAME: &str = "identity.toml";
pub(super) const TEMPORARY_NAME: &str = "identity.toml.tmp";

const FIRST_LINE: &str = "# holdfast identity 1, checksum ";
const SECOND_LINE: &str =
    "# Written by holdfastd. Do not edit or copy: see the documentation of `member add`.";

/// The file's text. Ids go as text, for TOML's integers are signed; the settings as their message in hexadecimal,
/// so that settings which are added later need nothing here.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    cell: String,
    replica: String,
    data_id: String,
    stage: StageName,
    #[serde(skip_serializing_if = "Option::is_none")]
    cell_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    founders: Vec<Founder>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<String>,
    /// Absent in what releases wrote that knew only version 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    state_version: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StageName {
    Fresh,
    Founded,
    Joined,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Founder {
    id: String,
    data_id: String,
    peer_address: String,
    client_address: String,
}

/// Reads and checks the file; `None` if there is none.
pub(super) fn read(path: &Path, replica: ReplicaId) -> Result<Option<Identity>, IdentityError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", path)(error)),
    };
    // What counts from now on is made durable: the process before may have died just after the rename.
    let root = path.parent().unwrap_or(Path::new("."));
    sync_dir(root).map_err(io("sync", root))?;
    decode(&bytes).map(Some).map_err(|what| IdentityError::Damaged { path: path.to_owned(), what, replica })
}

/// Writes the file durably.
pub(super) fn write(root: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let (temporary, path) = (root.join(TEMPORARY_NAME), root.join(NAME));
    let mut file = File::create(&temporary).map_err(io("create", &temporary))?;
    file.write_all(encode(identity).as_bytes()).map_err(io("write", &temporary))?;
    file.sync_all().map_err(io("sync", &temporary))?;
    fs::rename(&temporary, &path).map_err(io("rename", &temporary))?;
    sync_dir(root).map_err(io("sync", root))
}

fn encode(identity: &Identity) -> String {
    let document = Document::from(identity);
    let body = toml::to_string(&document).expect("a table of texts and numbers has a TOML form");
    let body = format!("{SECOND_LINE}\n{body}");
    format!("{FIRST_LINE}{:016x}\n{body}", xxh3_64(body.as_bytes()))
}

fn decode(bytes: &[u8]) -> Result<Identity, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let (first, body) = text.split_once('\n').ok_or("it has no first line")?;
    let checksum = first.strip_prefix(FIRST_LINE).ok_or_else(|| {
        format!("its first line is not {FIRST_LINE:?} and a checksum; is it a newer version's?")
    })?;
    if checksum != format!("{:016x}", xxh3_64(body.as_bytes())) {
        return Err("its checksum does not match".to_owned());
    }
    let document: Document = toml::from_str(body).map_err(|error| error.to_string())?;
    document.identity()
}

impl From<&Identity> for Document {
    fn from(identity: &Identity) -> Self {
        let (stage, founded) = match &identity.stage {
            Stage::Fresh => (StageName::Fresh, None),
            Stage::Founded(founded) => (StageName::Founded, Some(founded)),
            Stage::Joined { .. } => (StageName::Joined, None),
        };
        let cell_id = identity.cell_id();
        Self {
            cell: identity.cell.clone(),
            replica: identity.replica.0.to_string(),
            data_id: hex(identity.data_id),
            stage,
            cell_id: (cell_id != 0).then(|| hex(cell_id)),
            founders: founded.iter().flat_map(|founded| &founded.members).map(Founder::from).collect(),
            settings: founded.map(|founded| hex_bytes(&founded.settings.encode_to_vec())),
            state_version: founded.map(|founded| founded.state_version).filter(|version| *version > 1),
        }
    }
}

impl Document {
    fn identity(self) -> Result<Identity, String> {
        let cell_id = self.cell_id.as_deref().map(from_hex).transpose()?;
        let stage = match (self.stage, cell_id, self.settings) {
            (StageName::Fresh, None, None) => Stage::Fresh,
            (StageName::Joined, Some(cell_id), None) => Stage::Joined { cell_id },
            (StageName::Founded, Some(cell_id), Some(settings)) => {
                let members = self.founders.iter().map(Founder::member).collect::<Result<_, _>>()?;
                let state_version = self.state_version.unwrap_or(1);
                if !(1..=VERSION_MAX).contains(&state_version) {
                    return Err(format!(
                        "the cell was founded at state version {state_version}, and this release ends at {VERSION_MAX}: \
                         upgrade this replica"
                    ));
                }
                Stage::Founded(Founded {
                    cell_id,
                    members,
                    settings: settings_from(&settings)?,
                    state_version,
                })
            }
            _ => return Err("its stage and its other fields do not agree".to_owned()),
        };
        Ok(Identity {
            cell: self.cell,
            replica: ReplicaId(decimal(&self.replica)?),
            data_id: from_hex(&self.data_id)?,
            stage,
        })
    }
}

impl From<&Member> for Founder {
    fn from(member: &Member) -> Self {
        Self {
            id: member.id.to_string(),
            data_id: hex(member.data_id),
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
        }
    }
}

impl Founder {
    fn member(&self) -> Result<Member, String> {
        Ok(Member {
            id: decimal(&self.id)?,
            data_id: from_hex(&self.data_id)?,
            peer_address: self.peer_address.clone(),
            client_address: self.client_address.clone(),
            learner: false,
        })
    }
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn from_hex(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| format!("{text:?} is not a hexadecimal number"))
}

fn decimal(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

fn hex_bytes(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn settings_from(text: &str) -> Result<Settings, String> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    let bytes: Option<Vec<u8>> = digits.map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
    let bytes = bytes.ok_or_else(|| format!("{text:?} is not hexadecimal"))?;
    Settings::decode(&*bytes).map_err(|error| format!("its settings cannot be decoded: {error}"))
}
