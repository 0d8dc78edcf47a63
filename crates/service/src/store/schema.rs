//! Tables, and how older databases become newer ones.

use super::{Transaction, copies, damage, marker};
use crate::error::{Error, io_error};
use rusqlite::{Connection, TransactionBehavior};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

/// How long a writer waits for the writer of another process. Each holds the lock for milliseconds.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Statements that are kept prepared: all that boots need.
const STATEMENTS_MAX: usize = 64;

/// Step `n` makes format `n + 1` of format `n`. Steps are never changed, only added.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE machine (
        name        TEXT PRIMARY KEY,
        mac         TEXT NOT NULL UNIQUE,
        image       TEXT,
        root        TEXT NOT NULL,
        write_mode  TEXT NOT NULL,
        shelf_slot  TEXT NOT NULL UNIQUE,
        kernel_args TEXT NOT NULL,
        reset_disk  INTEGER NOT NULL,
        added_unix  INTEGER NOT NULL
    ) STRICT;

    -- An index of the image store, rebuilt from it at each start.
    CREATE TABLE image_version (
        image          TEXT NOT NULL,
        version        INTEGER NOT NULL,
        digest         TEXT NOT NULL,
        size_bytes     INTEGER NOT NULL,
        partition      INTEGER,
        file_system    TEXT NOT NULL,
        kernel_version TEXT NOT NULL,
        os_name        TEXT,
        imported_unix  INTEGER NOT NULL,
        PRIMARY KEY (image, version)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE lease (
        mac          TEXT PRIMARY KEY,
        address      TEXT NOT NULL UNIQUE,
        expires_unix INTEGER NOT NULL,
        host_name    TEXT
    ) STRICT;

    -- The number of a boot is never used again: the storage server tells boots apart by it.
    CREATE TABLE boot (
        id              INTEGER PRIMARY KEY AUTOINCREMENT,
        mac             TEXT NOT NULL,
        machine         TEXT,
        firmware        INTEGER NOT NULL,
        started_unix_ms INTEGER NOT NULL,
        image           TEXT,
        version         INTEGER,
        root            TEXT
    ) STRICT;
    CREATE INDEX boot_of_mac ON boot (mac, id);

    CREATE TABLE boot_stage (
        boot       INTEGER NOT NULL REFERENCES boot ON DELETE CASCADE,
        stage      TEXT NOT NULL,
        at_unix_ms INTEGER NOT NULL,
        -- Since the kernel started, by the machine's own clock; NULL before it has one.
        uptime_ms  INTEGER,
        detail     TEXT NOT NULL,
        PRIMARY KEY (boot, stage)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE seen (
        mac        TEXT PRIMARY KEY,
        firmware   INTEGER NOT NULL,
        address    TEXT,
        uuid       TEXT,
        host_name  TEXT,
        first_unix INTEGER NOT NULL,
        last_unix  INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX seen_last ON seen (last_unix);
", "
    -- The secret of a boot, 32 bytes; NULL in boots of an older Bootlace.
    ALTER TABLE boot ADD COLUMN token BLOB;
    -- Whether the machine has shown that it knows the secret: then what comes without it is refused.
    ALTER TABLE boot ADD COLUMN is_proven INTEGER NOT NULL DEFAULT 0;

    -- The last thing that was asked of a running machine.
    CREATE TABLE power_order (
        boot           INTEGER PRIMARY KEY REFERENCES boot ON DELETE CASCADE,
        counter        INTEGER NOT NULL,
        verb           TEXT NOT NULL,
        asked_unix_ms  INTEGER NOT NULL,
        obeyed_unix_ms INTEGER
    ) STRICT;

    CREATE TABLE ssh_host_key (
        machine TEXT PRIMARY KEY REFERENCES machine ON DELETE CASCADE,
        private TEXT NOT NULL,
        public  TEXT NOT NULL
    ) STRICT;
", "
    ALTER TABLE machine ADD COLUMN root_url TEXT;
", "
    -- The machine's next boot stops in a rescue shell.
    CREATE TABLE rescue_wanted (
        machine  TEXT PRIMARY KEY REFERENCES machine ON DELETE CASCADE,
        password TEXT NOT NULL
    ) STRICT;

    -- Boots that stop in a rescue shell.
    CREATE TABLE rescue (
        boot     INTEGER PRIMARY KEY REFERENCES boot ON DELETE CASCADE,
        password TEXT NOT NULL
    ) STRICT;
", "
    -- The oldest boots of strangers are found without a look at those of machines.
    CREATE INDEX boot_of_stranger ON boot (id) WHERE machine IS NULL;

    -- The PCs that asked longest ago are found in the index alone.
    DROP INDEX seen_last;
    CREATE INDEX seen_by_age ON seen (last_unix DESC, mac);

    -- How long a lease was given for. Nothing else tells a lease that is long from a clock that was ahead.
    ALTER TABLE lease ADD COLUMN length_seconds INTEGER NOT NULL DEFAULT 86400;

    -- What machines are made of, by the NIC that they boot from.
    CREATE TABLE hardware (
        mac         TEXT PRIMARY KEY,
        boot        INTEGER NOT NULL,
        -- One a line, sorted.
        modaliases  TEXT NOT NULL,
        -- The last boot that got an initrd made for it; how many of those in a row did not find their root.
        fitted_boot INTEGER,
        failures    INTEGER NOT NULL
    ) STRICT;
",
];

/// The newest format that this program knows.
pub(super) const KNOWN: u32 = MIGRATIONS.len() as u32;

/// What an older Bootlace ignores: made beside the steps, so that it still opens the database.
const ADDITIONS: &str = "
    -- What tells a boot from others with its number, 16 random bytes: numbers come again after a restore.
    CREATE TABLE IF NOT EXISTS boot_identity (
        boot     INTEGER PRIMARY KEY REFERENCES boot ON DELETE CASCADE,
        identity BLOB NOT NULL
    ) STRICT;
    -- What tells a machine from others that have its name at another time, 16 random bytes.
    CREATE TABLE IF NOT EXISTS machine_identity (
        machine  TEXT PRIMARY KEY REFERENCES machine ON DELETE CASCADE,
        identity BLOB NOT NULL
    ) STRICT;
    -- Machines of which the storage server has had a disk of their own.
    CREATE TABLE IF NOT EXISTS kept_disk (
        machine TEXT PRIMARY KEY REFERENCES machine ON DELETE CASCADE
    ) STRICT;
    -- Machines that were removed, and of which the storage server may still have a disk.
    CREATE TABLE IF NOT EXISTS disk_deletion (
        machine TEXT PRIMARY KEY
    ) STRICT;
    -- Which disk such an order means, by its random identity, if that was known; and whether it came with a backup.
    CREATE TABLE IF NOT EXISTS disk_deletion_of (
        machine     TEXT PRIMARY KEY REFERENCES disk_deletion ON DELETE CASCADE,
        id          TEXT NOT NULL,
        is_restored INTEGER NOT NULL
    ) STRICT;
    -- Of which machine the disk is that such an order means: its identity, its NICs, one behind the other with a space between
    -- them, and whether the order came with a backup.
    CREATE TABLE IF NOT EXISTS disk_deletion_owner (
        machine     TEXT PRIMARY KEY REFERENCES disk_deletion ON DELETE CASCADE,
        identity    BLOB NOT NULL,
        macs        TEXT NOT NULL,
        is_restored INTEGER NOT NULL
    ) STRICT;
    -- Which disk of a machine is to be reset at its next boot, if that was known.
    CREATE TABLE IF NOT EXISTS disk_reset_of (
        machine TEXT PRIMARY KEY REFERENCES machine ON DELETE CASCADE,
        id      TEXT NOT NULL
    ) STRICT;
    -- Boots whose keepers answer questions.
    CREATE TABLE IF NOT EXISTS boot_answers (
        boot INTEGER PRIMARY KEY REFERENCES boot ON DELETE CASCADE
    ) STRICT;
    -- Boots that throw their machine's disk away, and have not got it yet.
    CREATE TABLE IF NOT EXISTS disk_reset (
        boot INTEGER PRIMARY KEY REFERENCES boot ON DELETE CASCADE
    ) STRICT;
    -- What is told to a boot inside of TLS only, 32 bytes, and is mixed into its token.
    CREATE TABLE IF NOT EXISTS mixed_token (
        boot  INTEGER PRIMARY KEY REFERENCES boot ON DELETE CASCADE,
        token BLOB NOT NULL
    ) STRICT;
    -- Addresses that nobody gets until then, since somebody uses them who has no lease.
    CREATE TABLE IF NOT EXISTS declined_address (
        address    TEXT PRIMARY KEY,
        until_unix INTEGER NOT NULL
    ) STRICT;
    -- Addresses that belong to one NIC for ever, beside those in the configuration.
    CREATE TABLE IF NOT EXISTS fixed_address (
        mac     TEXT PRIMARY KEY,
        address TEXT NOT NULL UNIQUE
    ) STRICT;
    -- In whose name such an address was declined: that may have been somebody else, and its loader works there.
    CREATE TABLE IF NOT EXISTS declined_by (
        address TEXT PRIMARY KEY,
        mac     TEXT NOT NULL
    ) STRICT;
    -- Further NICs of machines, in the order in which they were added. An older Bootlace may have given one to another
    -- machine as its first, whose it is then.
    CREATE TABLE IF NOT EXISTS machine_mac (
        id      INTEGER PRIMARY KEY,
        mac     TEXT NOT NULL UNIQUE,
        machine TEXT NOT NULL REFERENCES machine ON DELETE CASCADE
    ) STRICT;
    -- Image versions that were in the image store and are not, as they were.
    CREATE TABLE IF NOT EXISTS lost_image_version (
        image          TEXT NOT NULL,
        version        INTEGER NOT NULL,
        digest         TEXT NOT NULL,
        size_bytes     INTEGER NOT NULL,
        partition      INTEGER,
        file_system    TEXT NOT NULL,
        kernel_version TEXT NOT NULL,
        os_name        TEXT,
        imported_unix  INTEGER NOT NULL,
        PRIMARY KEY (image, version)
    ) STRICT;
    -- What versions, lost ones too, are for: `x86-64`, as those are that are not in it, or `arm64`.
    CREATE TABLE IF NOT EXISTS image_architecture (
        image        TEXT NOT NULL,
        version      INTEGER NOT NULL,
        architecture TEXT NOT NULL,
        PRIMARY KEY (image, version)
    ) STRICT;
    -- Which logical volume is the root of versions, lost ones too: of those that are not in it none is.
    CREATE TABLE IF NOT EXISTS image_logical_volume (
        image   TEXT NOT NULL,
        version INTEGER NOT NULL,
        name    TEXT NOT NULL,
        PRIMARY KEY (image, version)
    ) STRICT;
    -- For whom versions are: as the image store has it, which is the one that counts. Those that are not in it are released.
    CREATE TABLE IF NOT EXISTS image_state (
        image   TEXT NOT NULL,
        version INTEGER NOT NULL,
        state   TEXT NOT NULL,
        PRIMARY KEY (image, version)
    ) STRICT;
    -- Versions that one room tries before all get them, which are to be tested as long as it does: an older Bootlace sees no more.
    CREATE TABLE IF NOT EXISTS image_ring (
        image           TEXT PRIMARY KEY,
        version         INTEGER NOT NULL,
        room            TEXT NOT NULL REFERENCES site_room ON DELETE CASCADE ON UPDATE CASCADE,
        started_unix_ms INTEGER NOT NULL,
        who             TEXT NOT NULL,
        -- JSON: names of machines that nobody waits for.
        without         TEXT NOT NULL,
        -- The last boot that does not count.
        first_boot      INTEGER NOT NULL,
        -- NULL: it goes on.
        end             TEXT,
        why             TEXT NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS image_ring_of_room ON image_ring (room);
    -- How long boots of machines took before.
    CREATE TABLE IF NOT EXISTS ring_usual (
        image    TEXT NOT NULL REFERENCES image_ring ON DELETE CASCADE,
        machine  TEXT NOT NULL,
        usual_ms INTEGER NOT NULL,
        PRIMARY KEY (image, machine)
    ) STRICT;
    -- Boots that have shown something in a ring: they were up after so long, or failed by the image's fault.
    CREATE TABLE IF NOT EXISTS ring_boot (
        image   TEXT NOT NULL REFERENCES image_ring ON DELETE CASCADE,
        boot    INTEGER NOT NULL,
        machine TEXT NOT NULL,
        took_ms INTEGER,
        why     TEXT,
        PRIMARY KEY (image, boot)
    ) STRICT;
    -- Not `room`: this is what the reserve on the disk makes and drops, in older releases as well.
    CREATE TABLE IF NOT EXISTS site_room (
        name        TEXT PRIMARY KEY,
        note        TEXT NOT NULL,
        -- ROWS.PLACES
        size        TEXT,
        kernel_args TEXT NOT NULL
    ) STRICT;
    -- What machines of a room inherit, and by the empty name what all others do. NULL: it says nothing; an image may also
    -- be said to be none.
    CREATE TABLE IF NOT EXISTS setting (
        room       TEXT PRIMARY KEY,
        has_image  INTEGER NOT NULL,
        image      TEXT,
        root       TEXT,
        root_url   TEXT,
        write_mode TEXT
    ) STRICT;
    -- Where machines are, and which of their settings are not their own. What they inherit stands in their rows, too.
    CREATE TABLE IF NOT EXISTS machine_place (
        machine             TEXT PRIMARY KEY REFERENCES machine ON DELETE CASCADE,
        room                TEXT,
        -- ROW.PLACE
        seat                TEXT,
        -- Separated by spaces.
        tags                TEXT NOT NULL,
        inherits_image      INTEGER NOT NULL,
        inherits_root       INTEGER NOT NULL,
        inherits_write_mode INTEGER NOT NULL
    ) STRICT;
    -- Menus that machines of a room inherit, as in `setting`; machines' own; and what machines start the next time, once.
    CREATE TABLE IF NOT EXISTS setting_menu (
        room TEXT PRIMARY KEY,
        menu TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS machine_menu (
        machine TEXT PRIMARY KEY REFERENCES machine ON DELETE CASCADE,
        menu    TEXT NOT NULL
    ) STRICT;
    -- Images that are being changed on machines.
    CREATE TABLE IF NOT EXISTS machine_edit (
        machine    TEXT PRIMARY KEY REFERENCES machine ON DELETE CASCADE,
        image      TEXT NOT NULL,
        version    INTEGER NOT NULL,
        by         TEXT NOT NULL,
        since_unix INTEGER NOT NULL
    ) STRICT;
    -- What is captured of machines, as JSON.
    CREATE TABLE IF NOT EXISTS machine_capture (
        machine TEXT PRIMARY KEY REFERENCES machine ON DELETE CASCADE,
        capture TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS next_boot (
        machine TEXT PRIMARY KEY REFERENCES machine ON DELETE CASCADE,
        choice  TEXT NOT NULL
    ) STRICT;
    -- What such a boot starts.
    CREATE TABLE IF NOT EXISTS boot_choice (
        boot   INTEGER PRIMARY KEY REFERENCES boot ON DELETE CASCADE,
        choice TEXT NOT NULL
    ) STRICT;
    -- Accounts, with the hashes of their passwords.
    CREATE TABLE IF NOT EXISTS user (
        name          TEXT PRIMARY KEY,
        role          TEXT NOT NULL,
        password      TEXT NOT NULL,
        added_unix    INTEGER NOT NULL,
        password_unix INTEGER NOT NULL
    ) STRICT;
    -- Browsers that are logged in. What the browser keeps is here as a hash; a number is never used again.
    CREATE TABLE IF NOT EXISTS session (
        id           INTEGER PRIMARY KEY AUTOINCREMENT,
        hash         BLOB NOT NULL UNIQUE,
        user         TEXT REFERENCES user ON DELETE CASCADE,
        created_unix INTEGER NOT NULL,
        last_unix    INTEGER NOT NULL,
        address      TEXT NOT NULL,
        browser      TEXT NOT NULL
    ) STRICT;
    -- Tokens of scripts, as hashes.
    CREATE TABLE IF NOT EXISTS token (
        id           INTEGER PRIMARY KEY AUTOINCREMENT,
        hash         BLOB NOT NULL UNIQUE,
        label        TEXT NOT NULL,
        user         TEXT REFERENCES user ON DELETE CASCADE,
        scope        TEXT NOT NULL,
        created_unix INTEGER NOT NULL,
        expires_unix INTEGER,
        last_unix    INTEGER
    ) STRICT;
    -- How far teachers' rights reach, of those who may not work with all machines at any time. An older Bootlace knows no
    -- such teachers: in its table they are viewers. Whom it makes a teacher is bound as he was.
    CREATE TABLE IF NOT EXISTS user_reach (
        user       TEXT PRIMARY KEY REFERENCES user ON DELETE CASCADE,
        is_teacher INTEGER NOT NULL,
        all_rooms  INTEGER NOT NULL,
        hours      TEXT
    ) STRICT;
    CREATE TABLE IF NOT EXISTS user_room (
        user TEXT NOT NULL REFERENCES user_reach ON DELETE CASCADE,
        room TEXT NOT NULL REFERENCES site_room ON DELETE CASCADE ON UPDATE CASCADE,
        PRIMARY KEY (user, room)
    ) STRICT;
    CREATE INDEX IF NOT EXISTS user_room_of_room ON user_room (room);
    -- Whom an older Bootlace makes somebody else is no teacher any more.
    CREATE TRIGGER IF NOT EXISTS user_is_no_teacher AFTER UPDATE OF role ON user
        WHEN old.role <> new.role AND new.role <> 'teacher'
        BEGIN UPDATE user_reach SET is_teacher = 0 WHERE user = new.name; END;
    -- Tokens that work with machines of some rooms only. For an older Bootlace they only read.
    CREATE TABLE IF NOT EXISTS token_reach (
        token INTEGER PRIMARY KEY REFERENCES token ON DELETE CASCADE,
        scope TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS token_room (
        token INTEGER NOT NULL REFERENCES token_reach ON DELETE CASCADE,
        room  TEXT NOT NULL REFERENCES site_room ON DELETE CASCADE ON UPDATE CASCADE,
        PRIMARY KEY (token, room)
    ) STRICT;
    CREATE INDEX IF NOT EXISTS token_room_of_room ON token_room (room);
    -- Browsers in which somebody is logged in whom a directory knows, and who has no account here. Not in `session`, where an
    -- older Bootlace would take him for root. The numbers are those of `session`.
    CREATE TABLE IF NOT EXISTS directory_session (
        id           INTEGER PRIMARY KEY,
        hash         BLOB NOT NULL UNIQUE,
        user         TEXT NOT NULL,
        -- JSON: in which groups of the configuration he was when he logged in.
        groups       TEXT NOT NULL,
        created_unix INTEGER NOT NULL,
        last_unix    INTEGER NOT NULL,
        address      TEXT NOT NULL,
        browser      TEXT NOT NULL
    ) STRICT;
    -- How often logins have failed in a row, by account and by address.
    CREATE TABLE IF NOT EXISTS login_failure (
        subject   TEXT PRIMARY KEY,
        n         INTEGER NOT NULL,
        last_unix INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS login_failure_by_age ON login_failure (last_unix DESC, subject);
    -- What alerts have told, by which way, and not told to be over.
    CREATE TABLE IF NOT EXISTS alert_told (
        channel       TEXT NOT NULL,
        kind          TEXT NOT NULL,
        about         TEXT NOT NULL,
        subject       TEXT NOT NULL,
        cause         TEXT NOT NULL,
        since_unix_ms INTEGER NOT NULL,
        PRIMARY KEY (channel, kind, about, subject)
    ) STRICT;
    -- What is laid over machines' roots: of a room, of a machine, or of the site, which is neither.
    CREATE TABLE IF NOT EXISTS site_file (
        room         TEXT REFERENCES site_room ON DELETE CASCADE ON UPDATE CASCADE,
        machine      TEXT REFERENCES machine ON DELETE CASCADE ON UPDATE CASCADE,
        path         TEXT NOT NULL,
        kind         TEXT NOT NULL,
        -- Of a file, or the target of a link; NULL if something is to be gone.
        content      BLOB,
        -- BLAKE3 of a file that is no secret.
        digest       TEXT,
        mode         TEXT,
        owner        TEXT,
        is_template  INTEGER NOT NULL,
        is_secret    INTEGER NOT NULL,
        changed_unix INTEGER NOT NULL,
        changed_by   TEXT NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX IF NOT EXISTS site_file_place
        ON site_file (coalesce(room, ''), coalesce(machine, ''), path);
    -- Disks that machines have beside their roots: of a room, of a machine, or of the site, which is neither.
    CREATE TABLE IF NOT EXISTS site_disk (
        room         TEXT REFERENCES site_room ON DELETE CASCADE ON UPDATE CASCADE,
        machine      TEXT REFERENCES machine ON DELETE CASCADE ON UPDATE CASCADE,
        name         TEXT NOT NULL,
        -- Both NULL: there is none of this name.
        image        TEXT,
        told         TEXT,
        changed_unix INTEGER NOT NULL,
        changed_by   TEXT NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX IF NOT EXISTS site_disk_name
        ON site_disk (coalesce(room, ''), coalesce(machine, ''), name);
    -- Who has changed what.
    CREATE TABLE IF NOT EXISTS audit (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        at_unix_ms INTEGER NOT NULL,
        who        TEXT NOT NULL,
        via        TEXT NOT NULL,
        address    TEXT,
        action     TEXT NOT NULL,
        subject    TEXT NOT NULL,
        -- JSON: a list of fields with what they were and what they are.
        changes    TEXT NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS audit_of_subject ON audit (subject, id);
    CREATE TRIGGER IF NOT EXISTS audit_is_not_changed BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
    CREATE TRIGGER IF NOT EXISTS audit_is_not_removed BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
";

/// Whether this process may use the database so; SQLite would not say why it may not. The file is not opened: whoever closes it
/// gives up all locks that this process has on it (fcntl(2)), and the next one to close the database then deletes its log.
pub(super) fn may(path: &Path, access: Access) -> io::Result<()> {
    Ok(accessat(CWD, path, access, AtFlags::EACCESS)?)
}

/// Opens the database for writing, making it if it is missing.
pub(crate) fn open(path: &Path) -> Result<Connection, Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(folder).map_err(io_error("make the folder", folder))?;
    marker::check(path)?;
    // SQLite would let everybody read it, and gives its WAL the same rights.
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            may(path, Access::READ_OK | Access::WRITE_OK)
                .map_err(io_error("open the database", path))?;
        }
        Err(error) => return Err(io_error("open the database", path)(error)),
    }
    let failed = damage::failed(path);
    let mut connection = Connection::open(path).map_err(&failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(&failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
        )
        .map_err(&failed)?;
    migrate(&mut connection, path)?;
    connection.execute_batch(ADDITIONS).map_err(&failed)?;
    Transaction::new(&connection).identify_machines().map_err(failed)?;
    marker::put(path)?;
    Ok(connection)
}

/// Opens the database for reading only, for pages that show history.
pub(super) fn open_reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let failed = damage::failed(path);
    // Who finds nothing to do waits for no other process that writes.
    if format(connection).map_err(&failed)? == KNOWN {
        return Ok(());
    }
    // Two processes may start at once: who gets the lock second finds the work done.
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
    let found = format(&transaction).map_err(&failed)?;
    if found > KNOWN {
        return Err(Error::NewerDatabase { path: path.to_owned(), found, known: KNOWN });
    }
    if found == KNOWN {
        return Ok(());
    }
    if found > 0 {
        copies::keep_former(&transaction, path, found)?;
    }
    for step in &MIGRATIONS[found as usize..] {
        transaction.execute_batch(step).map_err(&failed)?;
    }
    transaction.pragma_update(None, "user_version", KNOWN).map_err(&failed)?;
    transaction.commit().map_err(failed)
}

/// The format of a database; 0: it is empty.
pub(super) fn format(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::View;
    use wire::Mac;

    #[test]
    fn a_newer_database_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib/state.db");
        drop(open(&path).unwrap());
        drop(open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = open(&path).unwrap_err().to_string();
        let known =
            format!("has format 99, but this Bootlace knows only up to {}", MIGRATIONS.len());
        assert!(error.contains(&known), "{error}");
    }

    #[test]
    fn an_older_database_keeps_what_it_holds() {
        for format in 1..MIGRATIONS.len() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state.db");
            let older = Connection::open(&path).unwrap();
            older.execute_batch(&MIGRATIONS[..format].concat()).unwrap();
            older
                .execute_batch(
                    "INSERT INTO machine (name, mac, root, write_mode, shelf_slot, kernel_args, reset_disk, \
                     added_unix) VALUES ('lab-07', '02:00:00:00:00:01', 'nbd', 'discard', '0.0', '', 0, 0); \
                     INSERT INTO lease (mac, address, expires_unix, host_name) \
                     VALUES ('02:00:00:00:00:01', '10.0.0.7', 99, 'pc'); \
                     INSERT INTO boot (mac, firmware, started_unix_ms) VALUES ('02:00:00:00:00:01', 0, 5); \
                     INSERT INTO boot_stage VALUES (1, 'dhcp', 6, NULL, ''); \
                     INSERT INTO seen VALUES ('02:00:00:00:00:02', 0, NULL, NULL, NULL, 7, 8);",
                )
                .unwrap();
            older.pragma_update(None, "user_version", format as u32).unwrap();
            drop(older);
            let view = View::load(&Transaction::new(&open(&path).unwrap())).unwrap();
            let mac = Mac([2, 0, 0, 0, 0, 1]);
            assert_eq!(view.site.machines[0].mac, mac);
            assert_eq!(view.owner([10, 0, 0, 7].into()), Some(mac));
            assert_eq!(view.boots.get(&mac).unwrap().boot.stages.len(), 1);
            assert_eq!(view.discovered()[0].last_unix, 8);
            // What it was is kept.
            let copies = copies::former_copies(&path);
            assert_eq!(copies, [folder.path().join(format!("state.db.before-format-{KNOWN}"))]);
            let former = Connection::open(&copies[0]).unwrap();
            assert_eq!(super::format(&former).unwrap(), format as u32);
            let name = former.query_row("SELECT name FROM machine", [], |row| row.get(0));
            assert_eq!(name, Ok("lab-07".to_owned()));
        }
    }

    #[test]
    fn a_file_that_is_no_database_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        std::fs::write(&path, "no database at all, but text that is long enough").unwrap();
        let error = open(&path).unwrap_err().chain();
        assert!(error.contains("state.db") && error.contains("not a database"), "{error}");
        assert!(error.contains("bootlace backup restore"), "{error}");
    }

    #[test]
    fn a_database_that_is_missing_or_empty_is_not_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        drop(open(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        let refused = || open(&path).unwrap_err().chain();
        let error = refused();
        assert!(
            error.contains("is missing") && error.contains("bootlace backup restore"),
            "{error}"
        );
        assert!(!path.exists());
        std::fs::write(&path, "").unwrap();
        assert!(refused().contains("is empty"), "{}", refused());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        // The way out that it names.
        std::fs::remove_file(folder.path().join("state.was-here")).unwrap();
        open(&path).unwrap();
    }

    #[test]
    fn a_truncated_database_is_told_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let database = crate::store::Database::open(&path);
        drop(database.unwrap());
        let whole = {
            let connection = open(&path).unwrap();
            connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
            std::fs::read(&path).unwrap()
        };
        for length in [100, 4096, whole.len() / 2, whole.len() - 4096] {
            let cut = &whole[..length];
            std::fs::write(&path, cut).unwrap();
            for log in ["state.db-wal", "state.db-shm"] {
                let _ = std::fs::remove_file(folder.path().join(log));
            }
            let opened = open(&path).and_then(|connection| damage::check(&connection, &path));
            let error = opened.unwrap_err().chain();
            assert!(error.contains("is damaged"), "{length}: {error}");
            assert!(std::fs::read(&path).unwrap().starts_with(cut), "{length}");
        }
    }
}
