"""What a COCO dict holds, checked part by part."""
