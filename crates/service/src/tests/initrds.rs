//! Initrds: for all machines, and for the hardware of one.

use super::*;

#[tokio::test]
async fn an_emptied_cache_is_no_broken_boot() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian-12", 1);
    let service = Service::open(options(root)).unwrap();
    let asked = start_storage(root);
    let image: ImageName = "debian-12".parse().unwrap();
    let name: MachineName = "lab-07".parse().unwrap();
    adopt(&service, MAC, name, Some(image.clone())).await.unwrap();
    lease(&service, MAC, ADDRESS).await;
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let gone = InitrdState::Ready { path: root.join("gone.img"), size_bytes: 1 };
    service.initrds().shelf().put(service.initrds().for_all(&service.site(), &image, 1), gone);
    assert!(screen(&service).await.contains("is being built"));
    assert!(asked.lock().unwrap().is_empty(), "a disk was prepared for a PC that can't start");

    // The builder is woken by the PC that waits; without bootlace-init it then knows why it can't.
    let building = service.clone();
    let builder = tokio::spawn(async move { building.initrds().keep_built().await });
    let failed = async {
        while !matches!(service.initrd_state(&image, 1), InitrdState::Failed(_)) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), failed).await.unwrap();
    builder.abort();
    assert!(screen(&service).await.contains("bootlace-init"));
}

#[tokio::test]
async fn initrds_of_the_cache_are_listed_with_their_state() {
    let root = tempfile::tempdir().unwrap();
    let init = root.path().join("init");
    std::fs::write(&init, "init").unwrap();
    for version in 1..=3 {
        add_image(root.path(), "debian", version);
    }
    let options = Options { init: Some(init), ..options(root.path()) };
    let folder = options.initrds.clone();
    let service = Service::open(options).unwrap();
    let names = async |service: &Service| -> Vec<String> {
        let files = service.initrd_files().await.unwrap();
        let word = |file: &crate::InitrdFile| {
            let size = file.size_bytes.map_or("-".to_owned(), |size| size.to_string());
            format!("{}/{} {size} {}", file.image, file.version, file.is_current)
        };
        files.iter().map(word).collect()
    };
    assert_eq!(names(&service).await, ["debian/1 - false", "debian/2 - false", "debian/3 - false"]);
    std::fs::create_dir_all(&folder).unwrap();
    let site = service.site();
    let first = site.images.iter().find(|version| version.version == 1).unwrap();
    let current = crate::initrds::file_name(
        b"init",
        first,
        &service.initrds().for_all(&site, &first.image, 1),
    );
    for name in ["debian@1-0000.img", &current, "debian@2-0000.img", "gone@7-0000.img", "x"] {
        std::fs::write(folder.join(name), name).unwrap();
    }
    let size = current.len();
    assert_eq!(
        names(&service).await,
        [
            &format!("debian/1 {size} true"),
            "debian/2 17 false",
            "debian/3 - false",
            "gone/7 15 false"
        ]
    );
    service.initrds().forget(&"gone".parse().unwrap(), 7);
    service.initrds().forget(&"gone".parse().unwrap(), 1);
    assert_eq!(names(&service).await.len(), 3);
    // Something is laid over the version: it takes another initrd.
    let laid = b"bootlace-overlay/1\npath=/etc/x\nremove=\nend\n";
    let admin = service.admin(&crate::Actor::command(0)).unwrap();
    let overlay = service.store().dir().join("debian/1.overlay");
    std::fs::write(&overlay, laid).unwrap();
    let image = first.image.clone();
    // The init of this site is none.
    service.ensure_initrd(&image, 1).await.unwrap_err();
    assert_eq!(names(&service).await[0], format!("debian/1 {size} false"));
    let undone = admin.fix_version(&image, 1, None).await.unwrap();
    assert!(undone.laid_over.is_empty() && undone.initrd_error.is_none() && !overlay.exists());
    assert_eq!(names(&service).await[0], format!("debian/1 {size} true"));
    // What can't be read is no reason to start machines without it.
    std::fs::write(&overlay, "x").unwrap();
    let error = service.ensure_initrd(&image, 1).await.unwrap_err().chain();
    assert!(error.contains("bootlace image fix debian/v1"), "{error}");
    let unknown =
        crate::FixChoice { only: ["no-such".to_owned()].into(), ..crate::FixChoice::default() };
    let error = admin.fix_version(&image, 1, Some(unknown)).await.unwrap_err();
    assert!(error.is_wrong_input() && error.chain().contains("no check no-such"), "{error:?}");
}

#[tokio::test]
async fn initrds_for_hardware_go_when_nobody_is_to_get_them() {
    for are_fitted in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { fitted_initrds: are_fitted, ..options(folder.path()) };
        let initrds = options.initrds.clone();
        std::fs::create_dir_all(&initrds).unwrap();
        std::fs::write(initrds.join("debian@1+0123-4567.img"), "for hardware").unwrap();
        std::fs::write(initrds.join("debian@1-4567.img"), "for all").unwrap();
        let service = Service::open(options).unwrap();
        let builder = tokio::spawn(async move { service.initrds().keep_built().await });
        let left = || std::fs::read_dir(&initrds).unwrap().count();
        for _ in 0..200 {
            if left() < 2 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        builder.abort();
        assert!(initrds.join("debian@1-4567.img").exists() && left() == 1, "{are_fitted}");
    }
}

#[tokio::test]
async fn a_machine_gets_its_own_initrd_and_loses_it_if_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian", 1);
    let service = Service::open(options(root)).unwrap();
    lease(&service, MAC, ADDRESS).await;
    let name: MachineName = "lab-07".parse().unwrap();
    adopt(&service, MAC, name.clone(), Some("debian".parse().unwrap())).await.unwrap();
    let site = service.site();
    let network = options(root).network.unwrap();
    let plan = |boot| model::plan(&site, &network, (MAC, ADDRESS), boot, None).unwrap();
    let first = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    let list = b"pci:v00008086d0000100Ebc02sc00i00\nusb:v1ic03\n";
    assert!(!service.keep_hardware(MAC, first + 1, list).await.unwrap(), "of another boot");
    assert!(service.keep_hardware(MAC, first, list).await.unwrap());
    let hardware = service.hardware(&name).unwrap().unwrap();
    assert_eq!((hardware.modaliases.len(), hardware.is_trusted()), (2, true));
    assert_eq!(service.fitted_initrd(&plan(first), first, false).await.unwrap(), None, "not built");

    let file = root.join("fitted.img");
    std::fs::write(&file, "initrd").unwrap();
    let version = site.chosen(&"debian".parse().unwrap()).unwrap();
    let ready = InitrdState::Ready { path: file, size_bytes: 6 };
    service.initrds().shelf().put(service.initrds().fitted(version, &hardware.key()), ready);
    let key = Some(hardware.key());
    let fetched = NewStage::noticed(Stage::Initrd, "");
    for (n, expected) in [(1, &key), (2, &None), (3, &key), (4, &None), (5, &None)] {
        let boot = open_boot(&service).await;
        let given = service.fitted_initrd(&plan(boot), boot, false).await.unwrap();
        assert_eq!(given, *expected, "attempt {n}");
        assert_eq!(service.fitted_initrd(&plan(boot), boot, true).await.unwrap(), given, "again");
        service.stage(MAC, Some(boot), fetched.clone()).await.unwrap();
    }
    let boot = open_boot(&service).await;
    assert!(service.keep_hardware(MAC, boot, b"pci:v2bc02\n").await.unwrap());
    assert!(service.hardware(&name).unwrap().unwrap().is_trusted(), "other hardware");
}

#[tokio::test]
async fn a_machine_that_keeps_its_disk_keeps_the_initrd_of_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_image(root, "debian", 1);
    let service = Service::open(options(root)).unwrap();
    let _storage = start_storage(root);
    let name: MachineName = "lab-07".parse().unwrap();
    let change = MachineChange {
        mac: Some(MAC),
        image: Some(Some("debian".parse().unwrap())),
        write_mode: Some(WriteMode::Persistent),
        ..MachineChange::default()
    };
    service.set_machine(name.clone(), change).await.unwrap();
    lease(&service, MAC, ADDRESS).await;
    let first = service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert!(service.keep_hardware(MAC, first, b"pci:v1bc02\n").await.unwrap());
    pretend_initrds(&service);
    assert_eq!(screen(&service).await, "");
    let key = service.hardware(&name).unwrap().unwrap().key();

    // A newer version comes, and both have an initrd for this hardware.
    add_image(root, "debian", 2);
    let service = Service::open(options(root)).unwrap();
    pretend_initrds(&service);
    let site = service.site();
    let recipe = |number: u32| {
        let version = site.images.iter().find(|version| version.version == number).unwrap();
        service.initrds().fitted(version, &key)
    };
    let file = |number: u32| root.join(format!("{number}.img"));
    for number in [1, 2] {
        std::fs::write(file(number), "initrd").unwrap();
        let ready = InitrdState::Ready { path: file(number), size_bytes: 6 };
        service.initrds().shelf().put(recipe(number), ready);
    }
    let looked = async |service: &Service| {
        let building = service.clone();
        let builder = tokio::spawn(async move { building.initrds().keep_built().await });
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        builder.abort();
        [1, 2].map(|number| service.initrds().shelf().is_built(&recipe(number)))
    };
    assert_eq!(looked(&service).await, [true, true]);
    // Its next boot has begun, and has fetched nothing yet.
    service.boot_started(MAC, Firmware::Bios).await.unwrap();
    assert_eq!(looked(&service).await, [true, true]);
    let shown = service.preview(&name).await.unwrap().unwrap().grub_cfg;
    assert!(shown.contains("/boot/debian/1/vmlinuz"), "{shown}");
    assert!(shown.contains(&key), "{shown}");
    pretend_initrds(&service);
    let given = service.loader_config(ADDRESS, &model::LoaderAsk::Machine).await.text;
    assert!(given.contains("/boot/debian/1/vmlinuz") && given.contains(&key), "{given}");

    // Its disk is to be reset: then it stands on the newest.
    let reset = MachineChange { reset_disk: Some(true), ..MachineChange::default() };
    service.set_machine(name.clone(), reset).await.unwrap();
    assert_eq!(looked(&service).await, [false, true]);
    let shown = service.preview(&name).await.unwrap().unwrap().grub_cfg;
    assert!(shown.contains("/boot/debian/2/vmlinuz"), "{shown}");
}

#[test]
fn images_and_folders_are_read_alike() {
    use initrd_builder::{Directory, ModuleSource as _};
    let folder = tempfile::tempdir().unwrap();
    let (root, files) = (folder.path(), folder.path().join("files"));
    let modules = files.join("usr/lib/modules/6.1.0");
    for path in ["kernel/fs", "updates", "weak-updates/nvidia"] {
        std::fs::create_dir_all(modules.join(path)).unwrap();
    }
    std::fs::create_dir_all(files.join("opt/dkms")).unwrap();
    std::fs::write(files.join("opt/dkms/r8125.ko"), "r8125").unwrap();
    std::fs::write(modules.join("kernel/fs/ext4.ko"), "ext4").unwrap();
    for (target, link) in [
        ("/usr/lib", files.join("lib")),
        ("/opt/dkms", modules.join("extra")),
        ("/usr/src/linux", modules.join("build")),
        ("../..", modules.join("kernel/fs/up")),
        ("loop", modules.join("kernel/loop")),
        ("/lib/modules/6.1.0/kernel/fs/ext4.ko", modules.join("updates/ext4.ko")),
        ("/lib/modules/5.10/extra/nvidia.ko.xz", modules.join("weak-updates/nvidia/nvidia.ko.xz")),
    ] {
        std::os::unix::fs::symlink(target, link).unwrap();
    }
    add_image(root, "debian", 1);
    let version = options(root).images.join("debian/1");
    let about = std::fs::read_to_string(version.join("image.toml")).unwrap();
    let about = about.replace("size_bytes = 4096", "size_bytes = 4194304");
    std::fs::write(version.join("image.toml"), about).unwrap();
    let disk = version.join("disk.raw");
    #[expect(clippy::disallowed_methods, reason = "a test makes its disk")]
    let made = std::process::Command::new("mkfs.ext4")
        .args(["-qF", "-d"])
        .args([&files, &disk])
        .arg("4M")
        .output();
    assert!(made.unwrap().status.success());
    let service = Service::open(options(root)).unwrap();
    let of_image = crate::image_modules(&options(root).images, &service.site().images[0]).unwrap();
    let of_folder = Directory::open(&files).unwrap();
    let expected = [
        "extra/r8125.ko",
        "kernel/fs/ext4.ko",
        "kernel/loop",
        "updates/ext4.ko",
        "weak-updates/nvidia/nvidia.ko.xz",
    ];
    assert_eq!(of_folder.list().unwrap().files, expected);
    assert_eq!(of_image.list().unwrap(), of_folder.list().unwrap());
    for path in expected {
        let kind = |read: std::io::Result<Vec<u8>>| read.map_err(|error| error.kind()).ok();
        assert_eq!(kind(of_image.read(path)), kind(of_folder.read(path)), "{path}");
    }
    let dangling = of_image.read(expected[4]).unwrap_err();
    assert_eq!(dangling.kind(), std::io::ErrorKind::NotFound);
}

/// The machine is switched off and on.
async fn open_boot(service: &Service) -> model::BootId {
    let last = service.boot_of(MAC).unwrap().id;
    service.stage(MAC, Some(last), NewStage::noticed(Stage::Config, "")).await.unwrap();
    service.boot_started(MAC, Firmware::Bios).await.unwrap()
}
