//! PCs and images of both kinds of processors on one site.

use super::*;

/// The same as [`add_image`], for arm64.
fn add_arm64_image(root: &Path, name: &str) {
    add_image(root, name, 1);
    let about = options(root).images.join(name).join("1/image.toml");
    let text = std::fs::read_to_string(&about).unwrap();
    std::fs::write(about, text + "architecture = \"arm64\"\n").unwrap();
}

#[tokio::test]
async fn a_machine_is_not_started_with_an_image_for_other_processors_nor_given_one() {
    for (firmware, own, other, words) in [
        (Firmware::UefiArm64, "arm", "pc", "lab-07 is an arm64 PC, and the image pc is for x86-64"),
        (Firmware::Bios, "pc", "arm", "lab-07 is an x86-64 PC, and the image arm is for arm64"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        add_image(root, "pc", 1);
        add_arm64_image(root, "arm");
        let service = Service::open(options(root)).unwrap();
        let asked = start_storage(root);
        let name: MachineName = "lab-07".parse().unwrap();
        // Nothing is known of the PC yet.
        adopt(&service, MAC, name.clone(), Some(other.parse().unwrap())).await.unwrap();
        lease(&service, MAC, ADDRESS).await;
        service.boot_started(MAC, firmware).await.unwrap();
        pretend_initrds(&service);
        let shown = screen(&service).await;
        assert!(shown.starts_with(words), "{shown}");
        assert!(asked.lock().unwrap().is_empty(), "a disk was prepared for a PC that can't start");

        let change = |image: &str| MachineChange {
            image: Some(Some(image.parse().unwrap())),
            ..MachineChange::default()
        };
        let refused = service.set_machine(name.clone(), change(other)).await.unwrap_err();
        assert!(refused.is_wrong_input());
        let expected = format!("and the image {other} is for");
        assert!(refused.to_string().contains(&expected), "{refused}");
        service.set_machine(name, change(own)).await.unwrap();
        let shown = screen(&service).await;
        assert!(!shown.contains("processors") && !shown.contains(" PC, and"), "{shown}");
    }
}

#[tokio::test]
async fn without_the_init_for_arm64_only_images_for_that_have_no_initrd_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    add_arm64_image(folder.path(), "arm");
    let init = folder.path().join("init");
    std::fs::write(&init, "init").unwrap();
    let options = Options { init: Some(init), ..options(folder.path()) };
    let service = Service::open(options).unwrap();
    let image: ImageName = "arm".parse().unwrap();
    let name: MachineName = "lab-07".parse().unwrap();
    adopt(&service, MAC, name, Some(image.clone())).await.unwrap();
    let building = service.clone();
    let builder = tokio::spawn(async move { building.initrds().keep_built().await });
    let failed = async {
        loop {
            if let InitrdState::Failed(why) = service.initrd_state(&image, 1) {
                return why;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let why = tokio::time::timeout(std::time::Duration::from_secs(10), failed).await.unwrap();
    builder.abort();
    assert!(why.contains("bootlace-init-arm64 is neither beside"), "{why}");
}

#[tokio::test]
async fn what_is_for_x86_only_is_not_offered_to_an_arm64_pc() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    add_arm64_image(root, "arm");
    let service = Service::open(options(root)).unwrap();
    let name: MachineName = "lab-07".parse().unwrap();
    let menu = MachineChange {
        menu: Some("memory-test".parse().unwrap()),
        ..adoption(MAC, Some("arm".parse().unwrap()))
    };
    service.add_machine(name.clone(), menu).await.unwrap();
    lease(&service, MAC, ADDRESS).await;
    service.boot_started(MAC, Firmware::UefiArm64).await.unwrap();
    let shown = screen(&service).await;
    assert!(shown.contains("there is no memory test for arm64"), "{shown}");
    let refused = service.want_rescue(&name).await.unwrap_err().to_string();
    assert!(refused.contains("there is no rescue shell for those"), "{refused}");
}
