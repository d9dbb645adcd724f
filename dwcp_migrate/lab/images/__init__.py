"""Trees, guest images and wheels that the lab is made from, built once and cached."""
