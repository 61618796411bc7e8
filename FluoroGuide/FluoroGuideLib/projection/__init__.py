"""Line integrals through volumes and their pose derivatives."""
