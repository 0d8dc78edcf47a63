//! What rpm notes of the packages that it has installed: headers in a table of SQLite, as Fedora, RHEL and their kin have it.

use super::{Packages, WORD_MAX};
use rusqlite::{Connection, MAIN_DB};

/// Where the database is: since Fedora 36, and before.
pub(super) const DATABASES: [&str; 2] =
    ["/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite"];

/// Longest database that is read, in bytes: of a desktop with 3,000 packages it has 200 MB.
pub(super) const DATABASE_MAX: u64 = 512 << 20;

/// How a database of SQLite begins, and where it says whether changes stand in a file beside it (SQLite's file format, section 1.3).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const VERSIONS: [usize; 2] = [18, 19];
const WITHOUT_WAL: u8 = 1;

/// A hostile database may have a query go on for ever; one of 3,000 packages takes a hundredth of that.
const STEPS_MAX: u32 = 10_000;
const OPCODES_OF_STEP: i32 = 10_000;

// Tags and types of a header (rpm's format.md, "Header Structure").
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCHITECTURE: u32 = 1022;
const INT32: u32 = 4;
const STRING: u32 = 6;

/// Entries of a header.
const ENTRY_BYTES: usize = 16;

/// Reads rpm's database; `None`: it is none. Changes that were not written into it yet are not in it.
pub fn parse_rpm_database(mut bytes: Vec<u8>) -> Option<Packages> {
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    for at in VERSIONS {
        *bytes.get_mut(at)? = WITHOUT_WAL;
    }
    let mut database = Connection::open_in_memory().ok()?;
    let length = bytes.len();
    let is_read_only = true;
    database.deserialize_read_exact(MAIN_DB, bytes.as_slice(), length, is_read_only).ok()?;
    drop(bytes);
    let mut n_steps = 0;
    let stop = move || {
        n_steps += 1;
        n_steps > STEPS_MAX
    };
    database.progress_handler(OPCODES_OF_STEP, Some(stop)).ok()?;
    // What is called so and is a view would be a program.
    let is_table = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'Packages'";
    let n: i64 = database.query_row(is_table, [], |row| row.get(0)).ok()?;
    if n != 1 {
        return None;
    }
    let mut headers = database.prepare("SELECT blob FROM Packages").ok()?;
    let mut rows = headers.query([]).ok()?;
    let mut packages = Packages::new();
    while let Some(row) = rows.next().ok()? {
        let Some(header) = row.get_ref(0).ok().and_then(|it| it.as_blob().ok()) else { continue };
        let Some((key, version)) = parse_header(header) else { continue };
        // Of some, such as the kernel, several are installed side by side.
        let versions = packages.entry(key).or_default();
        if !versions.is_empty() {
            versions.push_str(", ");
        }
        versions.push_str(&version);
    }
    Some(packages)
}

/// Name, architecture and version in a header; `None`: it is none, or of no package.
fn parse_header(header: &[u8]) -> Option<((String, String), String)> {
    let number = |at: usize| -> Option<u32> {
        header
            .get(at..at.checked_add(4)?)
            .and_then(|it| Some(u32::from_be_bytes(it.try_into().ok()?)))
    };
    let n_entries = usize::try_from(number(0)?).ok()?;
    let data = n_entries.checked_mul(ENTRY_BYTES)?.checked_add(8)?;
    let entry = |wanted: u32, kind: u32| -> Option<usize> {
        let entries = header.get(8..data)?.chunks_exact(ENTRY_BYTES);
        let word = |entry: &[u8], at: usize| {
            entry.get(at..at + 4).and_then(|it| Some(u32::from_be_bytes(it.try_into().ok()?)))
        };
        let found = entries
            .into_iter()
            .find(|entry| word(entry, 0) == Some(wanted) && word(entry, 4) == Some(kind))?;
        data.checked_add(usize::try_from(word(found, 8)?).ok()?)
    };
    let text = |tag: u32| -> Option<&str> {
        let text = header.get(entry(tag, STRING)?..)?.split(|byte| *byte == 0).next()?;
        let text = std::str::from_utf8(text).ok()?;
        let is_word =
            !text.is_empty() && text.len() <= WORD_MAX && !text.contains(char::is_control);
        is_word.then_some(text)
    };
    let architecture = text(ARCHITECTURE)?;
    let epoch = entry(EPOCH, INT32).and_then(number);
    let epoch = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let version = format!("{epoch}{}-{}", text(VERSION)?, text(RELEASE)?);
    Some(((text(NAME)?.to_owned(), architecture.to_owned()), version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    fn header(entries: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let mut table = Vec::new();
        let mut data = Vec::new();
        for (tag, kind, value) in entries {
            for word in [*tag, *kind, data.len() as u32, 1] {
                table.extend(word.to_be_bytes());
            }
            data.extend(*value);
        }
        let lengths = [entries.len() as u32, data.len() as u32];
        [lengths.map(u32::to_be_bytes).concat(), table, data].concat()
    }

    #[test]
    fn a_header_is_read_and_no_part_of_it_is_taken_for_more() {
        let whole = header(&[
            (ARCHITECTURE, STRING, b"x86_64\0"),
            (EPOCH, INT32, &[0, 0, 0, 2]),
            (RELEASE, STRING, b"3.fc40\0"),
            (VERSION, STRING, b"9.1\0"),
            (NAME, STRING, b"vim\0"),
        ]);
        let vim = (("vim".to_owned(), "x86_64".to_owned()), "2:9.1-3.fc40".to_owned());
        assert_eq!(parse_header(&whole), Some(vim));
        for end in 0..whole.len() - 4 {
            assert_eq!(parse_header(&whole[..end]), None, "{end}");
        }
        for at in 0..whole.len() {
            let mut wrong = whole.clone();
            wrong[at] = 0xff;
            let _ = parse_header(&wrong);
        }
    }

    #[test]
    fn what_is_no_database_of_rpm_is_none() {
        assert_eq!(parse_rpm_database(Vec::new()), None);
        assert_eq!(parse_rpm_database(MAGIC.to_vec()), None);
        let view = of_statements(
            "CREATE VIEW Packages AS WITH RECURSIVE c(blob) AS (SELECT 1 UNION ALL SELECT blob + 1 FROM c) SELECT blob FROM c",
        );
        assert_eq!(parse_rpm_database(view), None);
        let other = of_statements("CREATE TABLE Packages (hnum INTEGER, other TEXT)");
        assert_eq!(parse_rpm_database(other), None);
        let strange = of_statements(
            "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB); INSERT INTO Packages VALUES (1, x'00'), (2, 'text'), (3, NULL)",
        );
        for end in (0..strange.len()).step_by(97) {
            let _ = parse_rpm_database(strange[..end].to_vec());
        }
        assert_eq!(parse_rpm_database(strange), Some(Packages::new()));
    }

    fn of_statements(statements: &str) -> Vec<u8> {
        let mut database = Connection::open_in_memory().unwrap();
        database.execute_batch(statements).unwrap();
        database.serialize(MAIN_DB).unwrap().to_vec()
    }

    /// As rpm itself writes it, with changes in a file beside it.
    #[test]
    fn what_rpm_has_installed_is_found() {
        if Command::new("rpmbuild").arg("--version").output().is_err() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let done = Command::new(program).args(arguments).current_dir(folder.path()).output();
            let done = done.unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        let spec = "Name: school\nEpoch: 1\nVersion: 2.5\nRelease: 4\nSummary: s\nLicense: none\nBuildArch: noarch\n\
                    %description\nd\n%files\n";
        std::fs::write(folder.path().join("school.spec"), spec).unwrap();
        let top = format!("_topdir {}/build", folder.path().display());
        run("rpmbuild", &["-bb", "--quiet", "--define", &top, "school.spec"]);
        let root = folder.path().join("root");
        let built = "build/RPMS/noarch/school-2.5-4.noarch.rpm";
        let root_text = root.to_string_lossy().into_owned();
        run("rpm", &["--root", &root_text, "--justdb", "--nodeps", "-i", built]);
        let below = |path: &str| root.join(Path::new(path).strip_prefix("/").unwrap());
        let database = DATABASES.into_iter().map(below).find(|path| path.exists());
        // Debian's own rpm has it elsewhere.
        let database = database.unwrap_or_else(|| root.join("root/.rpmdb/rpmdb.sqlite"));
        let packages = parse_rpm_database(std::fs::read(database).unwrap()).unwrap();
        let school = ("school".to_owned(), "noarch".to_owned());
        assert_eq!(packages.get(&school).map(String::as_str), Some("1:2.5-4"));
    }
}
