// What OHIF's own code reads in our objects, without a browser: voxels of each segment, measurements of each report.
//   npm install --no-save dcmjs@0.52.2 @cornerstonejs/adapters@5.14.0 @babel/runtime jsdom     (Node 20 or newer)
//   node deploy/ohif/adapters.mjs FOLDER_OF_IMAGES RESULT.dcm …
// Prints a line of JSON for each result: {"voxels": {"1": 3013339, …}} or {"measurements": {"Bidirectional": […]}}.
import fs from 'fs';
import path from 'path';
import { JSDOM } from 'jsdom';

const { window } = new JSDOM('<html></html>', { pretendToBeVisual: true });
Object.assign(globalThis, { window, document: window.document });
for (const name of ['Image', 'HTMLElement', 'CustomEvent', 'Event', 'EventTarget', 'HTMLImageElement',
  'HTMLCanvasElement', 'ImageData', 'self']) globalThis[name] ??= window[name] ?? window;
const print = console.log;
console.log = console.info = () => {}; // the adapters talk much
const { adaptersSEG, adaptersSR } = await import('@cornerstonejs/adapters');
const core = await import('@cornerstonejs/core');
const { data, utilities } = (await import('dcmjs')).default;

const bytes = file => { const b = fs.readFileSync(file); return b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength); };
const natural = file => {
  const read = data.DicomMessage.readFile(bytes(file));
  const ds = data.DicomMetaDictionary.naturalizeDataset(read.dict);
  return Object.assign(ds, { _meta: data.DicomMetaDictionary.namifyDataset(read.meta) });
};
const accessible = ds => { // a sequence of one item answers as that item, too: so does OHIF's metadata
  for (const [key, value] of Object.entries(ds)) {
    if (!Array.isArray(value) || typeof value[0] !== 'object' || value[0] === null) continue;
    value.forEach(accessible);
    if (value.length === 1) ds[key] = utilities.addAccessors(value);
  }
  return ds;
};

const [folder, ...results] = process.argv.slice(2);
const images = new Map(); // by image id, as OHIF names them
for (const name of fs.readdirSync(folder).sort()) {
  const ds = natural(path.join(folder, name));
  images.set(`wadors:http://pacs/instances/${ds.SOPInstanceUID}/frames/1`, ds);
}
const get = (module, id) => {
  const ds = images.get(id);
  if (!ds) return undefined;
  return {
    instance: ds,
    imagePlaneModule: {
      rowCosines: ds.ImageOrientationPatient.slice(0, 3), columnCosines: ds.ImageOrientationPatient.slice(3),
      imageOrientationPatient: ds.ImageOrientationPatient, imagePositionPatient: ds.ImagePositionPatient,
      rowPixelSpacing: ds.PixelSpacing[0], columnPixelSpacing: ds.PixelSpacing[1], sliceThickness: ds.SliceThickness,
      frameOfReferenceUID: ds.FrameOfReferenceUID, rows: ds.Rows, columns: ds.Columns,
    },
    generalImageModule: { sopInstanceUID: ds.SOPInstanceUID },
    generalSeriesModule: { seriesInstanceUID: ds.SeriesInstanceUID, modality: ds.Modality },
    imagePixelModule: { bitsAllocated: 16, pixelRepresentation: 0, samplesPerPixel: 1, rows: ds.Rows,
      columns: ds.Columns, photometricInterpretation: 'MONOCHROME2' },
  }[module];
};
core.metaData.addProvider(get, 10000);

async function voxels(file) {
  const { labelMapImages } = await adaptersSEG.Cornerstone3D.Segmentation.createFromDICOMSegBuffer(
    [...images.keys()], bytes(file), { metadataProvider: { get } });
  const count = {};
  for (const image of labelMapImages.flat(2)) {
    for (const label of image.getPixelData?.() ?? image.voxelManager.getScalarData()) {
      if (label) count[label] = (count[label] ?? 0) + 1;
    }
  }
  return count;
}

function measurements(file) {
  const ids = Object.fromEntries([...images].map(([id, ds]) => [`${ds.SOPInstanceUID}:1`, id]));
  const found = adaptersSR.Cornerstone3D.MeasurementReport.generateToolState(accessible(natural(file)), ids, { get }, {});
  return Object.fromEntries(Object.entries(found).map(([tool, states]) => [tool, states.map(state => ({
    label: state.annotation.data.label,
    image: state.sopInstanceUid,
    points: state.annotation.data.handles.points.map(point => [...point]),
    stats: Object.values(state.annotation.data.cachedStats)[0],
  }))]));
}

for (const file of results) {
  const { Modality } = natural(file);
  print(JSON.stringify(Modality === 'SEG' ? { voxels: await voxels(file) } : { measurements: measurements(file) }));
}
process.exit(0);
