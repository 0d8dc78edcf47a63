//! Which loader firmware is told, and how.

use super::*;
use wire::Firmware;

#[test]
fn uefi_http_boot_gets_a_url_and_the_class_that_it_wants_to_see() {
    let mut server = machines(config());
    let ask = |architecture, class: &[u8]| {
        message(Discover, 4)
            .with(OPT_CLIENT_ARCHITECTURE, &[0, architecture])
            .with(OPT_VENDOR_CLASS, class)
    };
    let mut request = Request::parse(&ask(16, b"HTTPClient:Arch:00016").bytes()).unwrap();
    assert_eq!(request.firmware, Some(Firmware::UefiX64Http));
    request.loader = Some("shimx64.efi".into());
    for (loader, url) in [(request.loader.clone(), "shimx64.efi"), (None, "bl.efi")] {
        request.loader = loader;
        let Decision::Reply(offer) = server.on_request(&request, NOW) else { panic!("no offer") };
        let url = format!("http://10.77.0.1/{url}\0");
        assert_eq!(option(&offer, OPT_BOOT_FILE).as_deref(), Some(url.as_bytes()));
        assert_eq!(option(&offer, OPT_VENDOR_CLASS).as_deref(), Some(HTTP_CLASS));
        assert_eq!(option(&offer, OPT_VENDOR_SPECIFIC), None);
        assert_eq!(&offer.bytes[108..108 + url.len()], url.as_bytes(), "GRUB reads the field");
    }
    // 32 bits, BIOS: an address, and nothing to boot.
    for architecture in [0, 15, 18] {
        let offer = reply(&mut server, &ask(architecture, b"HTTPClient:Arch:00015"));
        assert_eq!(option(&offer, OPT_BOOT_FILE), None, "{architecture}");
    }
    // How it is fetched, the class says.
    let firmware = |architecture, class: &[u8]| {
        Request::parse(&ask(architecture, class).bytes()).unwrap().firmware
    };
    assert_eq!(firmware(7, b"HTTPClient"), Some(Firmware::UefiX64Http));
    assert_eq!(firmware(16, b"PXEClient"), Some(Firmware::UefiX64));
}

#[test]
fn firmware_that_lists_no_architecture_is_what_its_class_names() {
    let firmware = |class: &[u8]| {
        let asks = message(Discover, 4).with(OPT_VENDOR_CLASS, class);
        Request::parse(&asks.bytes()).unwrap().firmware
    };
    assert_eq!(firmware(b"PXEClient:Arch:00007:UNDI:003016"), Some(Firmware::UefiX64));
    assert_eq!(firmware(b"PXEClient:Arch:00011"), Some(Firmware::UefiArm64));
    assert_eq!(firmware(b"HTTPClient:Arch:00016:UNDI:003001\0"), Some(Firmware::UefiX64Http));
    assert_eq!(firmware(b"PXEClient:Arch:00006:UNDI:003016"), Some(Firmware::Other(6)));
    // PXE before 2.1 names none, and is a BIOS.
    for class in
        ["PXEClient", "PXEClient:", "PXEClient:Arch:", "PXEClient:Arch:+7", "PXEClient:UNDI:7"]
    {
        assert_eq!(firmware(class.as_bytes()), Some(Firmware::Bios), "{class}");
    }
    assert_eq!(firmware(b"HTTPClient"), None);
    // A list without a kind in it says nothing.
    let asks = message(Discover, 4)
        .with(OPT_VENDOR_CLASS, b"PXEClient:Arch:00007")
        .with(OPT_CLIENT_ARCHITECTURE, &[7]);
    assert_eq!(Request::parse(&asks.bytes()).unwrap().firmware, Some(Firmware::UefiX64));
    // What is listed counts more.
    let both = message(Discover, 4).uefi().with(OPT_VENDOR_CLASS, b"PXEClient:Arch:00000");
    assert_eq!(Request::parse(&both.bytes()).unwrap().firmware, Some(Firmware::UefiX64));
}

#[test]
fn arm64_pcs_get_the_loader_for_them_by_pxe_and_by_http() {
    let mut server = machines(config());
    let ask = |architecture, class: &[u8]| {
        message(Discover, 5)
            .with(OPT_CLIENT_ARCHITECTURE, &[0, architecture])
            .with(OPT_VENDOR_CLASS, class)
    };
    let mut told = |architecture, class: &[u8]| {
        let offer = reply(&mut server, &ask(architecture, class));
        (option(&offer, OPT_BOOT_FILE).unwrap(), option(&offer, OPT_VENDOR_CLASS))
    };
    let by_pxe = (b"bl-arm64.efi\0".to_vec(), None);
    let url = b"http://10.77.0.1/bl-arm64.efi\0".to_vec();
    let by_http = (url, Some(HTTP_CLASS.to_vec()));
    assert_eq!(told(11, b"PXEClient:Arch:00011:UNDI:003000"), by_pxe);
    assert_eq!(told(19, b"HTTPClient:Arch:00019:UNDI:003001"), by_http);
    // How it is fetched, the class says.
    assert_eq!(told(19, b"PXEClient"), by_pxe);
    assert_eq!(told(11, b"HTTPClient"), by_http);
}

#[test]
fn a_pc_gets_the_loader_that_was_chosen_for_it() {
    let mut server = machines(config());
    let mut request = Request::parse(&message(Discover, 2).uefi().bytes()).unwrap();
    request.loader = Some("shimx64.efi".into());
    let Decision::Reply(offer) = server.on_request(&request, NOW) else { panic!("no offer") };
    assert_eq!(option(&offer, OPT_BOOT_FILE).as_deref(), Some(&b"shimx64.efi\0"[..]));
    assert_eq!(option(&offer, OPT_VENDOR_CLASS), None);
    // That is another thing than that nobody has chosen.
    (request.loader, request.gets_no_loader) = (None, true);
    let Decision::Reply(offer) = server.on_request(&request, NOW) else { panic!("no offer") };
    assert_eq!(option(&offer, OPT_BOOT_FILE), None);
    assert_eq!(offer.bytes[108..236], [0; 128]);
}
